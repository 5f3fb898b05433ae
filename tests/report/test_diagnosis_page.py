"""The page of a diagnosis shows `diagnosis.json` and escapes names."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from html_page import Page
from PIL import Image

from reid.diagnostics.identities import identity_images, similar_identities
from reid.diagnostics.spectral import describe_spectrum
from reid.diagnostics.survey import find_layers, first_to_look_at, survey
from reid.diagnostics.weights import diagnose_layer
from reid.records import ImageRecord, Split
from reid.report.diagnosis import render
from reid.report.diagnosis_figures import colored
from reid.report.diagnosis_tables import HEADER, layer_table, replacement_table, survey_table
from reid.report.tables import render_tables
from reid.training.provenance import provenance

EVIL = "<img src=x onerror=alert(1)>&'\""


def generated(**names: str) -> dict[str, Any]:
    """The content of a diagnosis of four layers. names: other names of "weights" and of the second layer."""
    random = torch.Generator().manual_seed(0)
    broken = torch.randn(4, 6, generator=random)
    broken[1, 2] = torch.nan
    tensors = {
        "conv.weight": torch.randn(16, 3, 3, 3, generator=random),
        names.get("layer", "fc.weight"): torch.randn(5, 12, generator=random) + 3,
        "depthwise.weight": torch.randn(6, 1, 3, 3, generator=random),
        "broken.weight": broken,
    }
    layers = find_layers(tensors)
    content: dict[str, Any] = {
        "weights": names.get("weights", "a.pth"),
        "tensors": len(tensors),
        "config": "SEED: 0\n",
        "provenance": provenance(),
        "survey": survey(layers),
        "layers": [{**diagnose_layer(layer), "spectral": describe_spectrum(layer)} for layer in layers[:3]],
    }
    content["look"] = first_to_look_at(content["survey"])
    content["layers"][1]["identities"] = similar_identities(tensors[layers[1].name], None)
    return json.loads(json.dumps(content, allow_nan=False))


def test_what_chance_makes_is_not_listed_as_correlated() -> None:
    content = generated()
    layer = content["layers"][1]
    chance = layer["formula"]["largest_cosine"]
    for pairs in (layer["pairs"], layer["identities"]["pairs"]):
        for pair in pairs[1:]:
            pair["cos"] = 7e-09
        pairs[0]["cos"] = chance + 0.01
    page = Page(render(content, {}))
    assert len(page.tables["layer1-pairs"]) == 2 and "e-0" not in page.words
    assert len(re.findall("<li><p>cosine", page.source)) == 1
    for pairs in (layer["pairs"], layer["identities"]["pairs"]):
        pairs[0]["cos"] = -chance + 0.01
    page = Page(render(content, {}))
    assert "layer1-pairs" not in page.tables and "No two vectors are more correlated than chance" in page.words
    assert "No two identities have vectors more similar than by chance." in page.words
    assert "most" not in layer_table(layer).note


@pytest.fixture
def split(tmp_path: Path) -> Split:
    random, train = np.random.default_rng(0), []
    for identity in range(10, 15):
        for camera in (1, 2, 3):
            path = tmp_path / f"{identity}_{camera}.jpg"
            Image.fromarray(random.integers(0, 255, (256, 128, 3), dtype=np.uint8)).save(path)
            train.append(ImageRecord(str(path), identity, camera))
    return Split("drawn", tuple(train), (ImageRecord("q.jpg", 1, 1),), (ImageRecord("g.jpg", 1, 2),))


def test_survey_and_numbers_are_those_of_the_json() -> None:
    content = generated()
    page = Page(render(content, {}))
    rows = page.tables["survey"]
    assert rows[0] == list(HEADER)
    assert [row[0] for row in rows[1:]] == [row["name"] for row in content["survey"]]
    by_name = {row["name"]: row for row in content["survey"]}
    fc = next(row for row in rows if row[0] == "fc.weight")
    truth = by_name["fc.weight"]
    assert fc[2:7] == [
        "12 × 5",
        "60",
        f"{truth['correlation']:.4f}",
        f"{truth['ratio']:.3f}",
        f"{truth['severest_pair']:.3g}",
    ]
    assert fc[8:10] == [f"{truth['effective_rank']:.1f} of 5", f"{truth['largest_cosine']:.3f}"]
    spectral = by_name["conv.weight"]["spectral"]
    assert next(row for row in rows if row[0] == "conv.weight")[10:] == [f"{spectral['alpha']:.2f}", "0"]
    shuffled = {row[0]: row[1:] for row in page.tables["layer0-spectral"]}["exponent α of the power-law tail"]
    assert shuffled == [f"{spectral['alpha']:.3f}", f"{spectral['shuffled']['alpha']:.3f}"]
    assert "fc.weight: S(W) is 0." in page.words and "Where to look first" in page.words
    assert rows[-1][0] == "broken.weight" and "invalid: 1 of 24 entries are NaN or infinite, at [1, 2]" in rows[-1][4]
    assert rows[-2][1:5] == ["depthwise convolution 3×3?", "9 × 1, 6 times", "54", "no pairs"]
    numbers = {row[0]: row[1:] for row in page.tables["layer1-numbers"]}
    layer = content["layers"][1]
    assert numbers["S(W)"][:2] == [f"{layer['measured']['correlation']:.4f}", f"{layer['formula']['correlation']:.4f}"]
    simulated = layer["simulation"]["effective_rank"]
    assert numbers["effective rank"][2] == "{mean:.1f} ({min:.1f} to {max:.1f})".format(**simulated)
    pairs = [[str(p["first"]), str(p["second"]), f"{p['cos']:+.3f}"] for p in layer["pairs"]]
    assert page.tables["layer1-pairs"][1:] == pairs and len(pairs) == 10
    assert "more correlated than by chance" in page.text
    assert "Every kernel sees only its own channel" in page.text
    for row in page.tables["survey"][1:]:
        assert not {"nan", "inf", "None"} & set(row)


def test_the_page_opens_offline_and_has_text_alternatives(drawn_charts: None) -> None:
    page = Page(render(generated(), {}))
    for _, attrs in page.tags:
        for key in ("src", "href", "data", "action"):
            assert str(attrs.get(key, "data:")).startswith(("data:", "#")), attrs
        assert not any(key.startswith("on") for key in attrs)
    assert "http://" not in page.source.replace("http://www.w3.org", "") and "https://" not in page.source
    policy = next(a["content"] for a in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "http" not in policy
    charts = [a for _, a in page.tags if a.get("role") == "img"]
    assert len(charts) == 3 + 3 + 1  # The depthwise layer has norms only.
    assert all(re.search(r"\d", chart["aria-label"]) for chart in charts)
    assert all(picture["alt"] for picture in page.find("img"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert len(page.source) < 500_000


def test_gram_picture_has_the_cosines_of_the_json() -> None:
    content = generated()
    page = Page(render(content, {}))
    picture = next(a for a in page.find("img") if a["alt"].startswith("Matrix of the absolute cosines"))
    image = Image.open(io.BytesIO(base64.b64decode(picture["src"].partition(",")[2])))
    gram = content["layers"][0]["gram"]
    pixels = np.frombuffer(base64.b64decode(gram["pixels"]), np.uint8).reshape(gram["size"], gram["size"])
    assert image.size == (16, 16)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(colored(pixels).convert("RGB")))
    brightness = np.asarray(colored(np.arange(256, dtype=np.uint8)[None]).convert("L"))[0].astype(int)
    assert (np.diff(brightness) >= -1).all() and brightness[-1] - brightness[0] > 200


def test_names_are_escaped(drawn_charts: None) -> None:
    content = generated(weights=EVIL, layer=f"{EVIL}.weight")
    content["config"] = EVIL
    content["layers"][1]["identities"]["dataset"] = EVIL
    page = Page(render(content, {}))
    assert EVIL not in page.source
    assert f"Correlation in {EVIL}" in page.text and f"{EVIL}.weight" in page.text
    assert all(attrs.get("src", "data:").startswith("data:") for attrs in page.find("img"))
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_identities_with_pictures(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    content = generated()
    content["layers"][1]["identities"] = found = similar_identities(torch.eye(5, 8) + 1, split)
    images = identity_images(split, found["pairs"])
    (Path(images[12][0].path)).write_bytes(b"no image")
    page = Page(render(content, images))
    thumbnails = [a for a in page.find("img") if a["alt"].startswith("identity")]
    # Each of five identities is in four of the ten pairs with two pictures; one picture of 12 cannot be read.
    assert len(thumbnails) == 2 * 5 * 4 - 4
    assert {a["alt"] for a in thumbnails if "identity 10," in a["alt"]} == {f"identity 10, camera {c}" for c in (1, 2)}
    assert "1 image could not be read and is not shown" in page.words
    assert "one identity of drawn" in page.words
    for thumbnail in thumbnails:
        image = Image.open(io.BytesIO(base64.b64decode(thumbnail["src"].partition(",")[2])))
        assert image.format == "JPEG" and max(image.size) <= 128
    assert str(Path(images[12][0].path).parent) not in page.source
    monkeypatch.setattr("reid.report.diagnosis.MAX_BYTES", 50_000)
    small = [a for a in Page(render(content, images)).find("img") if a["alt"].startswith("identity")]
    assert 0 < sum(len(a["src"]) for a in small) <= 50_000
    unnamed = Page(render(generated(), {}))
    assert "named by its row" in unnamed.words


def test_dead_vectors_are_counted() -> None:
    weight = torch.eye(5, 8) + 1
    weight[1], weight[3] = 0, 1e-40
    layers = find_layers({"fc.weight": weight, "fc2.weight": weight[:2]})
    found = [diagnose_layer(layer) for layer in layers]
    content = {"weights": "a", "tensors": 2, "config": "", "provenance": provenance(), "survey": survey(layers)}
    page = Page(render(content | {"layers": found}, {}))
    assert "longest: 2, of which 1 zero. All numbers and cosines are those of the others" in page.words
    assert "There is only one living weight vector" in page.words
    assert [row[2] for row in page.tables["survey"][1:]] == ["8 × 5, 2 dead", "8 × 2, 1 dead"]


def test_tables_for_the_terminal() -> None:
    content = generated()
    survey = survey_table(content["survey"], top=2)
    assert len(survey.rows) == 2 and survey.note == "2 more in diagnosis.json and on the page"
    assert {len(row) for row in survey.rows} == {len(survey.header)}
    assert all(len(line) <= 80 for line in render_tables([survey], "table").splitlines())
    layer = layer_table(content["layers"][1])
    assert layer.title.startswith("fc.weight: linear, 12 × 5")
    assert layer.rows[0][:2] == ["S(W)", f"{content['layers'][1]['measured']['correlation']:.4f}"]
    assert "most correlated vectors: " in layer.note and "most similar identities: " in layer.note
    score = {"rank1": 0.5, "mAP": 0.25, "normalized": False}
    rows = [
        {"variant": "US", "correlation": 1.0, "train_loss_after": None, "scores": [score]},
        {"variant": "QD", "correlation": None, "train_loss_after": 2.0, "scores": []},
    ]
    table = replacement_table({"name": "drawn", "replacements": rows})
    assert list(table.rows) == [["US", "1.0000", "–", "50.0 / 25.0", "–"], ["QD", "–", "2.000", "–", "–"]]
