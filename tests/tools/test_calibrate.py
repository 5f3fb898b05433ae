"""Calibrating from the command line: from features, from a checkpoint, and what does not go together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from called import Tool
from PIL import Image
from untrained import save_untrained

from reid import Embedder
from reid.config.loading import parse_config
from reid.inference.calibration import Calibration, calibrate
from reid.io.checkpoint import load_checkpoint
from reid.io.feature_files import save_features
from reid.io.safetensors_files import save_safetensors
from reid.records import Features

PAIRS = [
    *("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]", "MODEL.DEVICE", "cpu"),
    *("MODEL.EIGENLAYER.DIM", "16", "TEST.FEATURE", "output", "DATASETS.NAME", "synthetic"),
    *("DATASETS.SYNTHETIC.SIZE", "tiny"),
]
QUICK = ("--replicates", "5")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_untrained(tmp_path / "model.pth", parse_config("", PAIRS), normed=True, history=[1, 2])


def drawn(width: int = 16, paths: tuple[str, ...] = ()) -> tuple[Features, Features]:
    random = np.random.default_rng(0)
    centers = random.normal(size=(40, width))

    def side(count: int) -> Features:
        people = np.arange(count) % 39 + 1
        values = (centers[people] + 0.5 * random.normal(size=(count, width))).astype(np.float32)
        return Features(values, people, random.integers(1, 4, count), paths)

    return side(len(paths) or 80), side(len(paths) or 300)


def test_features_alone_tell_thresholds(tool: Tool, tmp_path: Path) -> None:
    save_features(tmp_path / "f.npz", *drawn(), feature="output")
    ended = tool("calibrate", "--features", tmp_path / "f.npz", *QUICK, "--output", tmp_path / "c.json").ok()
    found = Calibration.from_plain(json.loads((tmp_path / "c.json").read_text()))
    assert found == calibrate(*drawn(), dataset="f.npz", replicates=5) and found.model_id == ""
    assert re.search(rf"0\.01 +{found.thresholds[0].distance:.4f} \[", ended.out)
    assert (
        "Not estimated: 0.001, 0.0001" in ended.out and "Brier score" in ended.out and "rather than pairs" in ended.out
    )
    ended = tool("calibrate", "--features", tmp_path / "f.npz", *QUICK, "--rates", "0.05", "--prior", "0.5").ok()
    assert "assuming that a share of 0.5 of the pairs match" in ended.out and " 0.05 " in ended.out


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_checkpoint_is_calibrated_on_its_dataset(tool: Tool, weights: Path, kind: str) -> None:
    if kind == "safetensors":
        save_safetensors(weights.with_suffix(".safetensors"), {**load_checkpoint(weights), "format": 1})
        weights = weights.with_suffix(".safetensors")
    before, model_id = load_checkpoint(weights), Embedder.load(weights, device="cpu").model_id
    tool("calibrate", "--weights", weights, *QUICK, "--rates", "0.05", "--device", "cpu").ok()
    after = load_checkpoint(weights)
    stored = Calibration.from_plain(after.pop("calibration"))
    assert after.keys() == before.keys() and after["config"] == before["config"]
    assert all(torch.equal(after["model"][name], tensor) for name, tensor in before["model"].items())
    # It says of the same model what it means, so the model stays what it was.
    loaded = Embedder.load(weights, device="cpu")
    assert loaded.model_id == model_id == stored.model_id and loaded.calibration == stored
    assert stored.dataset.startswith("synthetic") and stored.thresholds[0].rate == 0.05


def test_features_and_the_checkpoint_they_are_of(tool: Tool, weights: Path, tmp_path: Path) -> None:
    paths = []
    for number in range(78):
        small = np.random.default_rng(number).integers(0, 256, (4, 3, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(small).resize((32, 64), Image.Resampling.BICUBIC).save(paths[-1])
    values = Embedder.load(weights, device="cpu").embed(paths)
    people, cameras = np.arange(78) % 39 + 1, np.arange(78) // 39 + 1
    sides = [Features(scale * values, people, camera, tuple(paths)) for scale, camera in ((3, cameras), (1, cameras))]
    save_features(tmp_path / "own.npz", *sides, feature="output")
    options = ("--weights", weights, "--device", "cpu", *QUICK, "--rates", "0.05")
    assert "stored in" in tool("calibrate", "--features", tmp_path / "own.npz", *options).ok().out
    before = weights.read_bytes()
    for name, sides_of_another, feature, message in (
        ("other", drawn(16, tuple(paths)), "output", "extracted by a different model: for .*png the cosine"),
        ("wide", drawn(24), "output", "features have 24 dimensions, and the output of the model has 16"),
        ("input", drawn(16), "input", "contains features of the Eigenlayer's input; give --feature input"),
    ):
        save_features(tmp_path / f"{name}.npz", *sides_of_another, feature=feature)
        ended = tool("calibrate", "--features", tmp_path / f"{name}.npz", *options)
        assert ended.code == 2 and ended.err.count("\n") == 1
        assert re.search(message, ended.err), ended.err
    assert weights.read_bytes() == before
    save_features(tmp_path / "nowhere.npz", *drawn(16), feature="output")
    ended = tool("calibrate", "--features", tmp_path / "nowhere.npz", *options).ok()
    assert "it is not verified that this model" in ended.out


def test_bad_input(tool: Tool, tmp_path: Path) -> None:
    assert "give --weights, --features, or both" in tool("calibrate").err
    query, gallery = drawn()
    alone = [Features(s.values, np.ones_like(s.identities), s.cameras) for s in (query, gallery)]
    save_features(tmp_path / "alone.npz", *alone, feature="output")
    tool("calibrate", "--features", tmp_path / "alone.npz", *QUICK).fails("without pairs of different identities")
    save_features(tmp_path / "f.npz", query, gallery, feature="output")
    ended = tool("calibrate", "--features", tmp_path / "f.npz", *QUICK, "--rates", "0.0001")
    ended.fails("cannot support a false-match rate of 0.0001")
    tool("calibrate", "--features", tmp_path / "f.npz", "DATASETS.NAME", "x").fails("takes no configuration")
