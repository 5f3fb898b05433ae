"""`tools/diagnose.py` as a user calls it, on checkpoints of ours and of others, with and without a dataset."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from benchmark import run_benchmark
from called import Tool
from html_page import Page

from reid.config import build
from reid.config.loading import load_config
from reid.decorrelation import replace_weight
from reid.io.checkpoint import save_checkpoint
from reid.report.diagnosis_tables import survey_table

CONFIG = Path(__file__).parents[2] / "configs" / "demo_synthetic.yaml"


@pytest.fixture
def checkpoint(tmp_path: Path, quick: tuple[str, ...]) -> Path:
    """A checkpoint of an untrained network for the tiny synthetic dataset."""
    config = load_config(CONFIG, quick)
    torch.manual_seed(0)
    classes = len(build.split(config).train_labels())
    model = build.network(config, num_classes=classes)
    weights = model.state_dict()
    weights["classifier.weight"][3] += 2 * weights["classifier.weight"][2]  # more similar than by chance
    path = tmp_path / "rri_last.pth"
    save_checkpoint(path, {"model": weights, "config": config.dump(), "num_classes": classes})
    return path


def correlation(weight: torch.Tensor) -> float:
    rows = weight.numpy().astype(np.float64).reshape(len(weight), -1)
    gram = rows @ rows.T
    return float(np.trace(gram) / np.abs(gram).sum())


def test_checkpoint_of_ours(tool: Tool, checkpoint: Path) -> None:
    ended = tool("diagnose", "--weights", checkpoint).ok()
    diagnosis = json.loads((checkpoint.parent / "diagnosis_rri_last" / "diagnosis.json").read_text())
    tensors = torch.load(checkpoint, weights_only=True)["model"]
    assert len(diagnosis["survey"]) == 5 + 2  # the convolutions, Eigenlayer and classifier
    for row in diagnosis["survey"]:
        assert row["correlation"] == pytest.approx(correlation(tensors[row["name"]]), rel=1e-9)
        assert row["groups_from"] == "network"
    assert [layer["name"] for layer in diagnosis["layers"]] == ["eigenlayer.weight", "classifier.weight"]
    assert diagnosis["layers"][1]["identities"]["dataset"] is None
    assert "dataset" not in diagnosis
    for text in ("eigenlayer.weight ", " 128 × 32 ", "most similar identities: "):
        assert text in ended.out
    first = survey_table(diagnosis["survey"], top=5)
    assert len(first.rows) == 5 and first.note == "2 more in diagnosis.json and on the page"
    page = (checkpoint.parent / "diagnosis_rri_last" / "diagnosis.html").read_text()
    assert "Correlation in rri_last.pth" in page and str(checkpoint.parent) not in page.partition("Provenance")[0]


def test_with_its_dataset(tool: Tool, checkpoint: Path, tmp_path: Path, drawn_charts: None) -> None:
    ended = tool("diagnose", "--weights", checkpoint, "--output", tmp_path / "out", "DATASETS.SYNTHETIC.SIZE", "tiny")
    ended.ok()
    assert "subset" in ended.out and "\nUVt " in ended.out
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert diagnosis["dataset"]["replacements"][0]["variant"] == "Orig"
    pair = diagnosis["layers"][1]["identities"]["pairs"][0]
    split = build.split(load_config(CONFIG, ["DATASETS.SYNTHETIC.SIZE", "tiny"]))
    labels = split.train_labels()
    rows = torch.load(checkpoint, weights_only=True)["model"]["classifier.weight"].numpy().astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = rows @ rows.T - 2 * np.eye(len(rows))
    assert {labels[pair["first"]], labels[pair["second"]]} == set(np.unravel_index(cosine.argmax(), cosine.shape))
    assert pair["cos"] == pytest.approx(cosine.max())
    page = (tmp_path / "out" / "diagnosis.html").read_text()
    assert f'alt="identity {pair["first"]}, camera ' in page and 'id="replacements"' in page
    assert "data:image" not in json.dumps(diagnosis)
    assert len(page) < 5_000_000


def test_another_dataset_names_no_identities(tool: Tool, checkpoint: Path, tmp_path: Path) -> None:
    other = ("DATASETS.SYNTHETIC.SIZE", "tiny", "DATASETS.SYNTHETIC.LAYOUT", "duke", "DATASETS.SYNTHETIC.SEED", "3")
    tool("diagnose", "--weights", checkpoint, "--output", tmp_path / "out", "--layer", "classifier", *other).ok()
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert diagnosis["layers"][0]["identities"]["dataset"] is None and diagnosis["dataset"]["name"]
    assert "survey" not in diagnosis and 'alt="identity' not in (tmp_path / "out" / "diagnosis.html").read_text()


def test_weights_of_others(tool: Tool, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = torchvision.models.resnext50_32x4d(weights=None)
    tensors = {name: torch.randn(t.shape) for name, t in model.state_dict().items() if name.startswith("layer1")}
    path = tmp_path / "model.pth.tar-60"
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in tensors.items()}, "rank1": np.float64(0.8), "epoch": 60}, path
    )
    ended = tool("diagnose", "--weights", path, "--layer", "layer1.0.conv2", "--output", tmp_path).ok()
    assert "layer1.0.conv2.weight: grouped convolution 3×3, 32 groups?, 36 × 4, 32 times" in ended.out
    groups_given = ("--groups", "layer1.0.conv2=1", "--groups", "layer1.1.conv2=8")
    ended = tool("diagnose", "--weights", path, "--output", tmp_path, *groups_given).ok()
    diagnosis = json.loads((tmp_path / "diagnosis.json").read_text())
    groups = {row["name"]: (row["groups"], row["groups_from"]) for row in diagnosis["survey"]}
    assert groups["layer1.0.conv2.weight"] == (1, "given") and groups["layer1.1.conv2.weight"] == (8, "given")
    assert groups["layer1.2.conv2.weight"] == (32, "shapes")
    assert diagnosis["layers"] == [] and diagnosis["config"] is None
    assert "embedding" not in ended.out


def test_what_is_taken_for_an_embedding_table_is_named(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"embedding.weight": torch.randn(6, 9), "fc.weight": torch.randn(4, 6)}, path)
    ended = tool("diagnose", "--weights", path).ok()
    assert "taken for embedding tables and left out: embedding.weight; " in ended.out
    assert "--layer embedding\n" in ended.out
    assert "taken for" not in tool("diagnose", "--weights", path, "--layer", "embedding").ok().out
    torch.save({"embedding.weight": torch.randn(6, 9)}, path)
    ended = tool("diagnose", "--weights", path)
    assert ended.code == 2 and "--layer embedding" in ended.out


def test_nan_breaks_a_row_and_not_the_survey(tool: Tool, checkpoint: Path, tmp_path: Path, drawn_charts: None) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["model"]["eigenlayer.weight"][3, 4] = torch.nan
    content.pop("format")
    save_checkpoint(checkpoint, content)
    tool("diagnose", "--weights", checkpoint, "--output", tmp_path / "diagnosis").ok()
    diagnosis = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    assert diagnosis["survey"][-1]["broken"].startswith("1 of 4,096 entries are NaN or infinite, at [3, 4]")
    assert [layer["name"] for layer in diagnosis["layers"]] == ["classifier.weight"]
    ended = tool("diagnose", "--weights", checkpoint, "--layer", "eigenlayer")
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("error: eigenlayer.weight: 1 of 4,096 entries are NaN or infinite")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo > executed",)


def test_mistakes_are_reported_in_one_line(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": torch.randn(3, 4), "fc.bias": torch.zeros(3)}, "a.pth")
    torch.save({"state_dict": Trap()}, "trap.pth")
    torch.save({"scale": torch.ones(3)}, "vectors.pth")
    Path("text.pth").write_text("hello")
    for arguments, message in [
        (["--weights", "none.pth"], "none.pth: no such checkpoint"),
        (["--weights", "text.pth"], "text.pth: corrupt or not a checkpoint"),
        (["--weights", "trap.pth"], "loading it would execute code (it requests posix.system)"),
        (["--weights", "vectors.pth"], "vectors.pth: contains no weight of a linear or convolution layer (1 tensors)"),
        (["--weights", "a.pth", "--layer", "fx"], "a.pth: no layer 'fx'; did you mean fc.weight?"),
        (["--weights", "a.pth", "--layer", "fc.bias"], "fc.bias: a torch.float32 tensor of shape (3,)"),
        (["--weights", "a.pth", "--groups", "fc"], "--groups 'fc': expected NAME=G"),
        (["--weights", "a.pth", "--config-file", CONFIG], "a.pth: a checkpoint of an unknown family"),
        (["--weights", "a.pth", "SEED", "1"], "a.pth: a checkpoint of an unknown family"),
        (["--weights", "a.pth", "--output", "text.pth"], "text.pth"),
    ]:
        ended = tool("diagnose", *arguments).fails(message, alone=True)
        assert "Traceback" not in ended.err
    assert not Path("executed").exists() and not Path("diagnosis").exists()


def test_a_file_named_as_html(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "<b onclick=x()>&.pth"
    torch.save({"<i>fc<i>.weight": torch.randn(3, 4)}, path)
    tool("diagnose", "--weights", path, "--layer", "<i>fc<i>", "--output", tmp_path / "diagnosis").ok()
    page = (tmp_path / "diagnosis" / "diagnosis.html").read_text()
    assert "<b onclick" not in page and "<i>" not in page and "&lt;b onclick=x()&gt;&amp;.pth" in page


def test_a_tied_weight_is_diagnosed_as_the_network_uses_it(tool: Tool, train: Tool, tmp_path: Path) -> None:
    tied = ("MODEL.EIGENLAYER.PARAMETRIZATION", "scaled_orthogonal", "RRI.MAX_ROUNDS", "0", "STEP0.EPOCHS", "1")
    train(*tied, "RRI.CONTROL", "False").ok()
    weights = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    tool("diagnose", "--weights", weights, "--output", tmp_path / "diagnosis").ok()
    diagnosis = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    layer = next(layer for layer in diagnosis["layers"] if layer["name"] == "eigenlayer.weight")
    assert layer["measured"]["correlation"] == pytest.approx(1.0, abs=1e-3)
    assert not [row for row in diagnosis["survey"] if "parametrizations" in row["name"]]


def test_two_checkpoints(tool: Tool, checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content.pop("format")
    weight = content["model"]["eigenlayer.weight"].double()
    replaced = replace_weight(weight.T, variant="US").weight.T
    after = tmp_path / "rri_after.pth"
    save_checkpoint(after, {**content, "model": {**content["model"], "eigenlayer.weight": replaced.float()}})
    arguments = ("--weights", after, "--against", checkpoint, "DATASETS.SYNTHETIC.SIZE", "tiny")
    ended = tool("diagnose", *arguments).ok()
    folder = tmp_path / "diagnosis_rri_after_vs_rri_last"
    changes = json.loads((folder / "diagnosis.json").read_text())["changes"]
    row, other = changes["layers"][:2]
    assert row["name"] == "eigenlayer.weight" and other["distance"] == 0 and changes["unmatched"] == []
    assert row["after"]["correlation"] == pytest.approx(1, abs=1e-5) and row["procrustes"] < 1e-5 < row["distance"]
    for name, tolerance in (("input", 1e-6), ("output", 1e-4)):  # the same distances
        found = changes["features"][name]
        assert (found["cka"], found["procrustes"]) == pytest.approx((1, 0), abs=tolerance)
        assert found["cka_by_chance"] < 1 and found["procrustes_by_chance"] > 0
    page = Page(folder / "diagnosis.html")
    assert page.tables["layers"][1][0] == "eigenlayer.weight" and len(page.tables["features"]) == 3
    assert "S(W) changed most in eigenlayer.weight" in page.words and "rri_after.pth against rri_last.pth" in ended.out
    # Each network sees the images as it was trained with them.
    config = content["config"].replace("STD:\n  - 0.229", "STD:\n  - 0.05")
    other = tmp_path / "brighter.pth"
    save_checkpoint(other, {**content, "config": config})
    tool("diagnose", "--weights", other, "--against", checkpoint, "DATASETS.SYNTHETIC.SIZE", "tiny").ok()
    found = json.loads((tmp_path / "diagnosis_brighter_vs_rri_last" / "diagnosis.json").read_text())["changes"]
    assert config != content["config"] and found["features"]["input"]["cka"] < 0.99
    for wrong, message in [
        (("--groups", "conv=²"), "expected NAME=G"),
        (("--against", checkpoint, "--layer", "eigenlayer"), "--layer and --against cannot be combined"),
        (("--against", after), "is compared with itself"),
    ]:
        tool("diagnose", "--weights", after, *wrong).fails(message)


def test_the_benchmark_of_a_run_scores_its_checkpoints(tool: Tool, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("rri_step0", "rri_last", "control_last"):
        shutil.copy(checkpoint, folder / f"{name}.pth")
    whitening = ("--whitenings=pca", "--dimensions=16")
    code, _, err = run_benchmark("scores", str(folder.parent), *whitening, f"--save={tmp_path / 'kept'}")
    assert code == 0, err
    kept = {file.stem: [json.loads(line)["cells"] for line in file.open()] for file in (tmp_path / "kept").iterdir()}
    options = ("--output", tmp_path, "--rerank", "--whiten", "pca", "--whiten-dim", "16")
    tool("evaluate", "--weights", checkpoint, *options).ok()
    expected = json.loads((tmp_path / "evaluation.json").read_text())

    def shown(entry: dict[str, Any]) -> str:
        return f"{100 * entry['rank1']:.1f} / {100 * entry['mAP']:.1f}"

    def pick(kind: str, feature: str, normalized: bool) -> str:
        found = [e for e in expected[kind] if (e["feature"], e["normalized"]) == (feature, normalized)]
        return shown(found[0])

    raw, unit = (pick("scores", "output", normalized) for normalized in (False, True))
    rows = [row for row in kept["replacements"] if row["weight"] == "Orig"]
    assert [(row["raw"], row["L2-normalized"]) for row in rows] == [(raw, unit)] * 3
    by_name = {row[""]: f"{row['rank-1']} / {row['mAP']}" for row in kept["expansion"]}
    assert by_name["raw"] == pick("scores", "input", False)
    assert by_name["raw, re-ranked, distance_power 2"] == pick("reranked", "input", False)
    whitened = {expected["whitened"][0]["variant"]: "whitened", "L2-normalized": "scores"}
    for row in kept["whitening"]:
        score = pick(whitened.pop(row.pop("")), "input", True)
        assert row == dict.fromkeys(("Step 0", "RRI", "control"), score)
    assert not whitened
    full = kept["compressed"][-1]  # all of the 32 components of the weight
    assert (full["dimensions"], full["truncated SVD, Step 0"], full["truncated SVD, control"]) == ("32", raw, raw)
