"""Another codebase's checkpoint converted from the command line, and the tools that work on it afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import foreign_models as models
import numpy as np
import pytest
import torch
from called import Tool

from reid import Embedder

TINY = ("DATASETS.NAME", "synthetic", "DATASETS.SYNTHETIC.SIZE", "tiny", "INPUT.SIZE", "[32, 16]")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    state = models.strong_baseline().state
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "resnet_model_120.pth")
    return tmp_path / "resnet_model_120.pth"


def test_what_is_written_and_told(tool: Tool, foreign: Path, tmp_path: Path) -> None:
    for name in ("ours.pth", "ours.safetensors"):
        ended = tool("convert", foreign, tmp_path / name).ok()
        assert "resnet18 of reid-strong-baseline, 7 classes" in ended.out
        assert "RGB in [0, 1], 256 x 128 bilinear" in ended.out and "no ReLU in the stem" in ended.out
        assert f"wrote {tmp_path / name}" in ended.out
    pictures = torch.rand(2, 3, 256, 128)
    found = [Embedder.load(tmp_path / name, device="cpu") for name in ("ours.pth", "ours.safetensors")]
    direct = Embedder.load(foreign, device="cpu")
    assert found[0].model_id == found[1].model_id == direct.model_id
    assert np.array_equal(found[0].embed(pictures), direct.embed(pictures))


def test_evaluation_and_diagnosis_work_on_it(tool: Tool, foreign: Path, tmp_path: Path) -> None:
    told = "resnet18 of reid-strong-baseline, 7 classes, converted on loading"
    ended = tool("evaluate", "--weights", foreign, "--output", tmp_path, "--save-features", *TINY).ok()
    assert told in ended.err, ended.err
    scores = json.loads((tmp_path / "evaluation.json").read_text())["scores"]
    # The Eigenlayer is the identity, and what it gives is shown once.
    assert [score["feature"] for score in scores] == ["input", "input"] and "the identity" in ended.out
    assert 0 < scores[0]["mAP"] < 1
    assert {path.name for path in tmp_path.glob("*.npz")} == {"features_input.npz"}
    assert told in tool("diagnose", "--weights", foreign, "--output", tmp_path / "diagnosis", *TINY).ok().err
    diagnosis = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    assert [layer["name"] for layer in diagnosis["layers"]] == ["eigenlayer.weight", "classifier.weight"]
    assert list(diagnosis["dataset"]["features"]) == ["input"]


def test_extraction_and_calibration_of_it(tool: Tool, foreign: Path, tmp_path: Path) -> None:
    ended = tool(
        "extract", "--weights", foreign, "--output", tmp_path / "out", "--part", "query", "--shard", "50", *TINY
    ).ok()
    assert "converted on loading" in ended.err, ended.err
    assert (tmp_path / "out" / "input").is_dir() and not (tmp_path / "out" / "output").exists()
    before = foreign.read_bytes()
    # Which would have to write into it.
    tool("calibrate", "--weights", foreign, *TINY).fails(f"svdnet convert {foreign} OUT.pth")
    assert foreign.read_bytes() == before


def test_an_iteration_starts_from_it(tool: Tool, foreign: Path, quick: tuple[str, ...], tmp_path: Path) -> None:
    tool("convert", foreign, tmp_path / "ours.pth").ok()
    pairs = (
        *quick,
        *("MODEL.BACKBONE", "resnet18", "MODEL.WEIGHTS", tmp_path / "ours.pth", "MODEL.LAST_STRIDE", "1"),
        *("MODEL.STEM", "no_relu", "INPUT.SIZE", "[32, 16]", "SOLVER.BATCH_SIZE", "64"),
        *("MODEL.NECK", "bnneck", "OUTPUT_DIR", tmp_path / "run", "STEP0.EPOCHS", "1"),
    )
    config = tmp_path / "c.yaml"
    config.write_text("DATASETS:\n  NAME: synthetic\n")
    tool("train", "--config-file", config, *pairs).ok()
    rows = json.loads((tmp_path / "run" / "scores.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["step0", "decorrelate", "restraint", "relaxation"]


def test_what_is_refused(tool: Tool, foreign: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.pth"
    there.write_bytes(b"precious")
    torch.save({"visual.blocks.0.weight": torch.ones(3)}, tmp_path / "vit.pth")
    for arguments, message in (
        ((foreign, there), "already exists and is not overwritten"),
        ((foreign, tmp_path / "ours.onnx"), "must be a .pth or .safetensors file"),
        ((tmp_path / "none.pth", tmp_path / "a.pth"), "no such"),
        ((tmp_path / "vit.pth", tmp_path / "a.pth"), "visual.blocks.0.weight (3,)"),
        ((foreign, tmp_path / "a.pth", "--family", "layumi"), "(0, 0, 0, 0)"),
        ((foreign, tmp_path / "a.pth", "MODEL.LAST_STRIDE", "3"), "MODEL.LAST_STRIDE"),
        ((foreign, tmp_path / "a.pth", "MODEL.NECK", "none"), "unexpected"),
    ):
        tool("convert", *arguments).fails(message, alone=True)
    assert there.read_bytes() == b"precious" and not (tmp_path / "a.pth").exists()
