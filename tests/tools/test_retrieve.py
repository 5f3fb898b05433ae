"""Landmarks from images to numbers: drawn, read, described by a small random network, ranked, counted again here."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from called import Tool
from exact_reference import SETUPS, revisited
from narrow_resnet import narrow_resnet34
from PIL import Image
from torch.nn import functional
from untrained import save_untrained

from reid.config.loading import parse_config
from reid.data.synthetic import generate_landmarks
from reid.inference.conversion import load_network
from reid.io.feature_files import load_training_npz

__all__ = ["narrow_resnet34"]
pytestmark = pytest.mark.usefixtures("narrow_resnet34")
SMALL = (
    *("MODEL.BACKBONE", "resnet34", "MODEL.WEIGHTS", "none", "MODEL.POOLING.NAME", "gem", "MODEL.DEVICE", "cpu"),
    *("MODEL.EIGENLAYER.DIM", "16", "INPUT.SIZE", "[32, 16]", "DATASETS.NAME", "synthetic"),
    *("DATASETS.SYNTHETIC.SIZE", "tiny", "TEST.PRECISION", "float32"),
)


def checkpoint(path: Path, *overrides: str) -> Path:
    return save_untrained(path, parse_config("", [*SMALL, *overrides]), classes=4, seed=3)


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_landmarks(tmp_path_factory.mktemp("landmarks") / "set", size="tiny", progress=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights") / "random.pth")


def truth_of(landmarks: Path) -> dict[str, Any]:
    return pickle.loads((landmarks / "landmarks" / "gnd_landmarks.pkl").read_bytes())


def described(landmarks: Path, weights: Path, names: list[str], boxes: list[list[float]] | None) -> np.ndarray:
    """Two scales by the generalized mean, computed in float64, image after image; the longer side is at most 96."""
    model, config = load_network(weights)
    model, p = model.double(), model.pooling.p.item()
    rows = []
    for i, name in enumerate(names):
        picture = Image.open(landmarks / "landmarks" / "jpg" / f"{name}.jpg")
        factor = 96 / max(picture.size)
        if boxes:
            picture = picture.crop(tuple(round(value) for value in boxes[i]))
        size = tuple(max(1, round(side * factor)) for side in picture.size)
        pixels = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)) / 255
        image = (pixels - np.array(config.INPUT.MEAN)) / np.array(config.INPUT.STD)
        batch = torch.from_numpy(image.transpose(2, 0, 1)[None])
        total = np.zeros(64)
        for scale in (1, 0.5):
            seen = functional.interpolate(batch, scale_factor=scale, mode="bilinear", align_corners=False)
            with torch.inference_mode():
                value = model.embed(seen).input[0].numpy()
            total += (value / np.linalg.norm(value)) ** p / 2
        total **= 1 / p
        rows.append(total / np.linalg.norm(total))
    return np.array(rows)


def counted(query: np.ndarray, gallery: np.ndarray, truth: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    lists = {name: [entry[name] for entry in truth] for name in ("easy", "hard", "junk")}
    found: dict[str, dict[str, float]] = {}
    for setup in SETUPS:
        areas, cuts = revisited(query, gallery, lists, setup)
        found[setup] = {"mAP": float(np.mean(areas))}
        found[setup] |= {f"mP@{k}": float(value) for k, value in zip((1, 5, 10), np.mean(cuts, axis=0), strict=True)}
    return found


def assert_scores(found: dict[str, Any], expected: dict[str, dict[str, float]]) -> None:
    assert list(found) == list(expected)
    for setup, scores in expected.items():
        for name, value in scores.items():
            assert found[setup][name] == pytest.approx(value, abs=1e-9), (setup, name)
        assert found[setup]["queries"] == 6


def test_from_images_to_numbers(tool: Tool, landmarks: Path, weights: Path, tmp_path: Path) -> None:
    whitened = ("--whiten", "pca", "--whiten-dim", "12")
    how = ("--scales", "1,0.5", "--combine", "gem", "--longest-side", "96", "--batch-size", "4")
    given = ("--weights", weights, "--dataset", "landmarks", "--root", landmarks, "--output", tmp_path)
    ended = tool("retrieve", *given, *how, *whitened, "--save-features").ok()
    content, truth = json.loads((tmp_path / "retrieval.json").read_text()), truth_of(landmarks)
    query, gallery = (np.load(tmp_path / f"{part}.npy") for part in ("query", "gallery"))

    boxes = [entry["bbx"] for entry in truth["gnd"]]
    np.testing.assert_allclose(query, described(landmarks, weights, truth["qimlist"], boxes), atol=2e-5)
    np.testing.assert_allclose(gallery, described(landmarks, weights, truth["imlist"], None), atol=2e-5)
    assert_scores(content["revisited"], counted(query, gallery, truth["gnd"]))
    assert content["dataset"] == "landmarks" and content["feature"] == "input" and not content["flip"]
    assert (content["scales"], content["combine"], content["longest_side"]) == ([1.0, 0.5], "gem", 96)

    training, feature = load_training_npz(tmp_path / "training.npz")
    assert feature == "input" and training.values.shape == (64, 64)
    values = training.values.astype(np.float64)
    _, deviations, axes = np.linalg.svd(values - values.mean(0), full_matrices=False)
    white = [(side - values.mean(0)) @ axes[:12].T / deviations[:12] for side in (query, gallery)]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in white]
    assert_scores(content["revisited_whitened"], counted(*unit, truth["gnd"]))
    described_as = {"whitening": "pca", "ridge": 0.0, "dimensions": 12, "training_images": 64}
    assert content["whitening"] == described_as
    assert content["revisited_whitened"] != content["revisited"]
    for words in ("landmarks\n", "easy ", "hard, whitened ", "mP@10"):
        assert words in ended.out

    # The saved descriptors give the same numbers, and so does the whitening saved with them.
    truth_file = landmarks / "landmarks" / "gnd_landmarks.pkl"
    from_files = ("--features", tmp_path, "--ground-truth", truth_file, *whitened)
    tool("evaluate", *from_files, "--whiten-from", tmp_path / "training.npz").ok()
    again = json.loads((tmp_path / "evaluation.json").read_text())
    for key in ("revisited", "revisited_whitened", "whitening"):
        assert again[key] == content[key]
    tool("evaluate", *from_files).fails("add --whiten-from FILE")

    # Learned from pairs of pedestrians, of the Eigenlayer's output this time.
    learned = ("--whiten", "learned", "--whiten-ridge", "0.001", "--longest-side", "48", "--save-features")
    tool("retrieve", *given, *learned, "TEST.FEATURE", "output").ok()
    content = json.loads((tmp_path / "retrieval.json").read_text())
    assert np.load(tmp_path / "query.npy").shape == (6, 16)
    assert (content["feature"], content["whitening"]["dimensions"]) == ("output", 16)
    ended = tool("retrieve", *given, *learned, "--whiten-from", tmp_path / "training.npz")
    ended.fails("holds the Eigenlayer's output, but its input is evaluated")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--scales", "1,0"), "scales [1.0, 0.0]: must be one or more numbers above 0"),
        (("--scales", "half"), "must be comma-separated numbers"),
        (("--longest-side", "0"), "at least 1 pixel, not 0"),
        (("--batch-size", "0"), "batch size 0 must be at least 1"),
        (("--dataset", "landmark"), "did you mean landmarks"),
        (("--whiten", "pca", "--longest-side", "32"), "dim 64: the 64 features vary in only"),
    ],
)
def test_bad_input_is_told_in_a_line(
    tool: Tool, landmarks: Path, weights: Path, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    given = ("--weights", weights, "--dataset", "landmarks", "--root", landmarks, "--output", tmp_path / "out")
    ended = tool("retrieve", *given, *more).fails(words)
    assert ended.err.splitlines()[-1].count("error: ") == 1
    assert not (tmp_path / "out").exists()


def test_a_network_of_one_size_is_refused(tool: Tool, landmarks: Path, tmp_path: Path) -> None:
    fixed = ("MODEL.BACKBONE", "small_local", "MODEL.POOLING.NAME", "flatten", "INPUT.SIZE", "[128, 64]")
    path = checkpoint(tmp_path / "fixed.pth", *fixed)
    ended = tool("retrieve", "--weights", path, "--dataset", "landmarks", "--root", landmarks)
    ended.fails("only accepts images of one size (its 128 x 64)")


def test_landmarks_are_drawn_by_the_tool(tool: Tool, landmarks: Path, tmp_path: Path) -> None:
    ended = tool("dataset", "--layout", "revisited", "--size", "tiny", "--output", tmp_path / "drawn").ok()
    assert "6 landmarks, 6 queries, 72 gallery, seed 0" in ended.out
    assert truth_of(tmp_path / "drawn")["imlist"] == truth_of(landmarks)["imlist"]
    ended = tool("dataset", "--layout", "revisited", "--size", "market", "--output", tmp_path / "x")
    ended.fails("must be one of tiny, demo")
    ended = tool("dataset", "--layout", "revisited", "--output", tmp_path / "x", "--sheet", tmp_path / "x.png")
    ended.fails("--sheet shows pedestrians")
