"""Whitening in evaluations of people: fitted on training features, applied to query and gallery alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from called import Tool
from untrained import save_untrained

from reid.config.loading import parse_config
from reid.io.feature_files import read_training_features, save_features, save_training_features
from reid.ranking import evaluate
from reid.records import Features


def drawn(seed: int, counts: tuple[int, ...], lowest: int = 1) -> list[Features]:
    """Sets of features of one world: its dimensions depend on each other and vary by different amounts."""
    world = np.random.default_rng(0)
    mix, random = world.normal(size=(8, 8)) * np.linspace(3, 0.2, 8), np.random.default_rng(seed)
    centres = random.normal(size=(20, 8))
    sets = []
    for count in counts:
        people = random.integers(lowest, 20, count)
        values = ((centres[people] + 0.6 * random.normal(size=(count, 8))) @ mix.T).astype(np.float32)
        sets.append(Features(values, people, random.integers(1, 4, count)))
    return sets


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Features to be scored and those of training images, junk and distractors among both."""
    query, _ = drawn(0, (40, 0))
    _, gallery = drawn(0, (40, 300), lowest=1)
    save_features(tmp_path / "f.npz", query, gallery, feature="input")
    (training,) = drawn(7, (200,), lowest=-1)
    save_training_features(tmp_path / "t.npz", training, feature="input")
    return tmp_path / "f.npz", tmp_path / "t.npz"


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)


def projection(how: str, training: Features, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and (dim, D) of unit rows, by another way than the package: singular vectors, and loops over pairs."""
    rows = unit(training.values)
    mean = rows.mean(0)
    if how == "pca":
        _, deviations, axes = np.linalg.svd(rows - mean, full_matrices=False)
        return mean, axes[:dim] / deviations[:dim, None] * np.sqrt(len(rows))
    scatter, pairs = np.zeros((8, 8)), 0
    for i in range(len(rows)):
        for j in range(i):
            same = training.identities[i] == training.identities[j] > 0
            if same and training.cameras[i] != training.cameras[j]:
                scatter += np.outer(rows[i] - rows[j], rows[i] - rows[j])
                pairs += 1
    whiten = np.linalg.inv(np.linalg.cholesky(scatter / pairs))
    axes, _, _ = np.linalg.svd(whiten @ (rows - mean).T, full_matrices=False)
    return mean, axes[:, :dim].T @ whiten


@pytest.mark.parametrize("how", ["pca", "learned"])
def test_features_of_a_file(tool: Tool, files: tuple[Path, Path], how: str) -> None:
    features, training = files
    given = ("--features", features, "--whiten", how, "--whiten-dim", "5", "--whiten-from", training)
    ended = tool("evaluate", *given).ok()
    found = json.loads((features.with_suffix("") / "evaluation.json").read_text())
    mean, matrix = projection(how, read_training_features(training)[0], 5)
    query, _ = drawn(0, (40, 0))
    _, gallery = drawn(0, (40, 300))
    sides = [
        Features(unit((unit(side.values) - mean) @ matrix.T), side.identities, side.cameras)
        for side in (query, gallery)
    ]
    (entry,) = found["whitened"]
    assert entry["mAP"] == pytest.approx(evaluate(*sides).mAP, abs=1e-9)
    assert entry["rank1"] == pytest.approx(evaluate(*sides).rank1)
    assert entry["mAP"] != pytest.approx(found["scores"][1]["mAP"], abs=1e-3)
    assert (entry["feature"], entry["normalized"], entry["flip"]) == ("input", True, False)
    assert (entry["whitening"], entry["dimensions"], entry["training_images"]) == (how, 5, 200)
    assert all(word in ended.out for word in f"input, L2, {entry['variant']}".split())  # perhaps on two lines
    # By cosine the same rows are ranked.
    tool("evaluate", *given, "--metric", "cosine").ok()
    again = json.loads((features.with_suffix("") / "evaluation.json").read_text())
    assert again["whitened"][0]["mAP"] == pytest.approx(entry["mAP"], abs=1e-6)


def test_what_training_features_may_be(tool: Tool, files: tuple[Path, Path], tmp_path: Path) -> None:
    features, training = files
    other_query, other_gallery = drawn(3, (50, 90))
    save_features(tmp_path / "other.npz", other_query, other_gallery, feature="input")
    joined, name = read_training_features(tmp_path / "other.npz")
    assert name == "input" and joined.values.shape == (140, 8)
    np.testing.assert_array_equal(joined.cameras, [*other_query.cameras, *other_gallery.cameras])
    tool("evaluate", "--features", features, "--whiten", "pca", "--whiten-from", tmp_path / "other.npz").ok()
    found = json.loads((tmp_path / "f" / "evaluation.json").read_text())
    assert found["whitened"][0]["training_images"] == 140

    few = read_training_features(training)[0]
    save_training_features(
        tmp_path / "few.npz", Features(few.values[:5], few.identities[:5], few.cameras[:5]), feature="input"
    )
    save_training_features(
        tmp_path / "wide.npz", Features(np.eye(9), np.arange(1, 10), np.ones(9, dtype=int)), feature="input"
    )
    save_training_features(tmp_path / "out.npz", few, feature="output")
    for more, words in (
        ((), "add --whiten-from FILE"),
        (("--whiten-from", features), "fitted on training images, not on the features it is applied to"),
        (("--whiten-from", tmp_path / "no.npz"), "no such feature file"),
        (("--whiten-from", tmp_path / "few.npz"), "dim 8: the 5 features vary in only 4 directions"),
        (("--whiten-from", training, "--whiten-dim", "9"), "dim 9: must be in [1, 8]"),
        (("--whiten-from", tmp_path / "wide.npz", "--whiten-dim", "3"), "9 dimensions cannot be applied to features"),
        (("--whiten-from", tmp_path / "out.npz"), "holds the Eigenlayer's output, but its input is evaluated"),
    ):
        tool("evaluate", "--features", features, "--whiten", "pca", *more).fails(words, alone=True)


def test_the_training_set_of_a_checkpoint(tool: Tool, tmp_path: Path) -> None:
    pairs = (
        *("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "MODEL.DEVICE", "cpu"),
        *("INPUT.SIZE", "[128, 64]", "MODEL.EIGENLAYER.DIM", "16"),
        *("DATASETS.NAME", "synthetic", "DATASETS.SYNTHETIC.SIZE", "tiny"),
    )
    path = save_untrained(tmp_path / "random.pth", parse_config("", pairs), classes=8, seed=3)
    whitened = ("--whiten", "pca", "--whiten-dim", "12")
    tool("evaluate", "--weights", path, *whitened, "--save-features", "TEST.FLIP", "True").ok()
    found = json.loads((tmp_path / "evaluation.json").read_text())["whitened"]
    assert [(s["feature"], s["flip"]) for s in found] == [
        ("input", False), ("output", False), ("input", True), ("output", True),
    ]  # fmt: skip
    assert all(s["training_images"] == 64 and s["dimensions"] == 12 for s in found)
    assert read_training_features(tmp_path / "training_output.npz")[0].values.shape == (64, 16)
    for feature in ("input", "output"):
        saved = (tmp_path / f"features_{feature}.npz", "--whiten-from", tmp_path / f"training_{feature}.npz")
        tool("evaluate", "--features", *saved, *whitened).ok()
        again = json.loads((tmp_path / f"features_{feature}" / "evaluation.json").read_text())["whitened"]
        assert again == [s for s in found if s["feature"] == feature and not s["flip"]]
    ended = tool("evaluate", "--weights", path, *whitened, "--whiten-from", tmp_path / "training_input.npz")
    ended.fails("--whiten-from requires --features")
