"""The page of ranked lists shows `ranked_lists.json`, embeds each picture once, and escapes names."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from markupsafe import escape
from PIL import Image

from reid.diagnostics.retrieval import CheckpointFeatures, describe_retrieval
from reid.records import Features
from reid.report import thumbnails as thumbnails_module
from reid.report.pages import write_page
from reid.report.ranked_lists import render
from reid.report.tables import shown_difference
from reid.report.thumbnails import MAX_SIDE, thumbnails

EVIL = "<script>alert(1)</script>&'\".jpg"


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Two checkpoints on 20 queries and 40 gallery images, with image files."""
    random = np.random.default_rng(0)

    def part(name: str, count: int, lowest: int) -> Features:
        paths = []
        for i in range(count):
            path = tmp_path / f"{name}{i:02d}.jpg"
            Image.fromarray(random.integers(0, 255, (16, 8, 3), dtype=np.uint8)).resize((64, 128)).save(path)
            paths.append(str(path))
        labels = random.integers(lowest, 6, count), random.integers(1, 4, count)
        return Features(random.normal(size=(count, 6)).astype(np.float32), *labels, tuple(paths))

    query, gallery = part("query", 20, 1), part("gallery", 40, -1)
    other = dataclasses.replace(query, values=query.values[::-1].copy())
    sides = [
        CheckpointFeatures("rri_last.pth", query, gallery, "input"),
        CheckpointFeatures("control_last.pth", other, gallery, "input"),
    ]
    return describe_retrieval("drawn", sides, queries=8, top=5, gain=(False, "for a test"))


def test_scores_and_comparison(content: dict[str, Any]) -> None:
    page = Page(render(content))
    names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
    head, *rows, last = page.tables["scores"]
    assert head[0] == "checkpoint" and len(rows) == 2
    for row, side in zip(rows, content["sides"], strict=True):
        assert row == [side["name"], *(f"{100 * side['scores'][name]:.1f}" for name in names)]
    comparison = content["comparison"]
    first, second = (side["scores"] for side in content["sides"])
    assert last == ["difference", *(f"{shown_difference(first[name], second[name]):+.1f}" for name in names)]
    assert comparison["intervals"]["mAP"][0] == pytest.approx(comparison["mAP"])
    assert page.texts["repaired"].split() == [str(comparison["repaired"]), "/", str(comparison["broken"])]
    assert "not a gain of RRI" in page.texts["comparison"] and "for a test" in page.texts["comparison"]


def test_only_a_gain_over_the_control_is_called_gain(content: dict[str, Any]) -> None:
    assert "gain of RRI, points" not in render(content)
    content["comparison"] |= {"name": "gain of RRI", "reason": "RRI and its control, each after 8 epochs"}
    text = render(content)
    assert "gain of RRI, points" in text and "not a gain" not in text and "each after 8 epochs." in text


def test_each_answer_has_a_text_alternative(content: dict[str, Any]) -> None:
    page = Page(render(content))
    labels = [named["aria-label"] for named in page.find("svg", **{"class": "shot"})]
    expected = []
    for entry in content["lists"]:
        expected.append(f"query: identity {entry['identity']}, camera {entry['camera']}")
        for side in entry["sides"]:
            for answer in side["answers"]:
                identity = f"identity {answer['identity']}" if answer["identity"] else "a distractor"
                verdict = "right" if answer["right"] else "wrong"
                expected.append(f"{identity}, camera {answer['camera']}, rank {answer['rank']}, {verdict}")
    assert labels == expected
    signs = [named["href"] for named in page.find("use") if (named["href"] or "").startswith("#sign")]
    assert signs == [f"#sign-{word.rpartition(', ')[2]}" for word in expected if "rank" in word]
    assert [named["class"] for named in page.find("li") if named.get("class") in ("right", "wrong")] == [
        sign.removeprefix("#sign-") for sign in signs if sign
    ]
    cards = page.find("article")
    assert [card["data-identity"] for card in cards] == [str(entry["identity"]) for entry in content["lists"]]
    assert [card["data-change"] for card in cards] == [entry["change"] for entry in content["lists"]]


def test_each_picture_is_embedded_once_and_small(content: dict[str, Any]) -> None:
    page = Page(render(content))
    named = {entry["path"] for entry in content["lists"]}
    named |= {a["path"] for entry in content["lists"] for side in entry["sides"] for a in side["answers"]}
    sources = [tag["href"] or "" for tag in page.find("image")]
    assert len(sources) == len(set(sources)) == len(named)
    for source in sources:
        assert source.startswith("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.size == (MAX_SIDE // 2, MAX_SIDE)
    embedded = {tag["id"] for tag in page.find("symbol")}
    assert all((tag["href"] or "")[1:] in embedded for tag in page.find("use", width="56"))


def test_camera_pairs(content: dict[str, Any]) -> None:
    page = Page(render(content))
    one, two = (side["camera_pairs"] for side in content["sides"])
    for name in ("rank1", "mAP"):
        head, *rows = page.tables[f"pairs-{name.lower()}"]
        assert head == ["", "to 1", "to 2", "to 3"]
        for row, camera, values, others in zip(rows, one["query_cameras"], one[name], two[name], strict=True):
            cells = [
                "–" if a is None else f"{100 * a:.1f}{100 * (a - b):+.1f}" for a, b in zip(values, others, strict=True)
            ]
            assert row == [f"from {camera}", *cells]
    counts = page.tables["pairs-queries"]
    assert counts[1][2] == f"{one['queries'][0][1]}{one['left_out'][0][1]} skipped"
    assert counts[-1][1:] == [str(count) for count in one["images"]]


def test_one_checkpoint_without_map_or_lists(content: dict[str, Any]) -> None:
    content |= {"sides": content["sides"][:1], "comparison": None, "lists": []}
    content["sides"][0]["map"] = None
    page = Page(render(content))
    assert not page.find("article") and not page.find("figure") and not page.find("form") and not page.find("script")
    assert page.tables["scores"][1][0] == "rri_last.pth" and len(page.tables["scores"]) == 2


def test_maps_have_text_alternatives(content: dict[str, Any], drawn_charts: None) -> None:
    page = Page(render(content))
    charts = [tag["aria-label"] or "" for tag in page.find("div", role="img")]
    assert len(charts) == 2
    for chart, side in zip(charts, content["sides"], strict=True):
        same = side["map"]["same_identity"]
        assert chart.startswith(f"PCA, {side['name']}. {len(side['map']['points'])} images of ")
        for share in (same["map"]["any_camera"], same["space"]["any_camera"], same["chance"]):
            assert f"{100 * share:.1f} %" in chart


def test_names_are_escaped(content: dict[str, Any], tmp_path: Path, drawn_charts: None) -> None:
    evil = tmp_path / EVIL.replace("/", "∕")
    (tmp_path / "query00.jpg").rename(evil)
    content["dataset"] = content["sides"][0]["name"] = EVIL
    content["comparison"]["reason"] = EVIL
    for entry in content["lists"]:
        entry["path"] = str(evil)
        entry["sides"][0]["answers"][0]["path"] = f"/nowhere/{EVIL}\udcff"
    text = render(content)
    assert "<script>alert" not in text and len(re.findall("<script", text)) == 1
    page = Page(text)
    assert f"<title>{escape(evil.name)}</title>" in text
    assert not [named for _, named in page.tags if any(key.startswith("on") for key in named)]
    assert str(tmp_path) not in text, "the page shows the folder of the images"
    write_page(tmp_path / "page.html", text)


def test_unreadable_pictures_leave_an_empty_frame(content: dict[str, Any], tmp_path: Path) -> None:
    entry = content["lists"][0]
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "query01.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "huge.pgm").write_bytes(b"P5 60000 60000 255\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["cut.jpg", "text.png", "huge.pgm", "pipe.jpg", "missing.jpg", ".", "nul\0.jpg"]
    names = [str(tmp_path / name) for name in names] + [""]
    assert thumbnails(names) == dict.fromkeys(sorted(names))
    entry["path"] = names[0]
    for name, answer in zip(names[1:], entry["sides"][0]["answers"], strict=False):
        answer["path"] = name
    text = render(content)
    assert "6 images could not be read" in Page(text).words
    page = Page(text)
    assert sum((tag.get("aria-label") or "").endswith(", no image") for tag in page.find("svg")) == 5
    assert len(page.find("path", **{"class": "none"})) == 6


def test_the_size_of_a_page_is_limited(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = content["lists"][0]["path"]
    size = len(thumbnails([first])[first].src)  # type: ignore[union-attr]
    monkeypatch.setattr(thumbnails_module, "MAX_BYTES", 3 * size)
    text = render(content)
    page = Page(text)
    embedded = sum(len(tag["href"] or "") for tag in page.find("image"))
    assert 0 < embedded <= 3 * size and page.find("image")[0]["href"] == thumbnails([first])[first].src  # type: ignore[union-attr]
    named = {entry["path"] for entry in content["lists"]}
    named |= {a["path"] for entry in content["lists"] for side in entry["sides"] for a in side["answers"]}
    assert f"{len(named) - len(page.find('image'))} more images would exceed the size limit" in page.words
