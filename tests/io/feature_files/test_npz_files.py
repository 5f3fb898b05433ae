from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.feature_files import load_npz, read_features, save_features
from reid.records import Features

Sides = tuple[Features, Features]


def test_saved_and_loaded_the_same(tmp_path: Path, sides: Sides) -> None:
    save_features(tmp_path / "f.npz", *sides, feature="input")
    for read in (load_npz, read_features):
        query, gallery, feature = read(tmp_path / "f.npz")
        assert feature == "input"
        for found, expected in ((query, sides[0]), (gallery, sides[1])):
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.identities, expected.identities)
            np.testing.assert_array_equal(found.cameras, expected.cameras)
            assert found.paths == expected.paths
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]


def test_paths_and_name_may_be_missing(tmp_path: Path, sides: Sides) -> None:
    names = ("values", "identities", "cameras")
    parts = zip(("query", "gallery"), sides, strict=True)
    arrays = {f"{part}_{name}": getattr(side, name) for part, side in parts for name in names}
    np.savez(tmp_path / "f.npz", **arrays)
    query, _, feature = load_npz(tmp_path / "f.npz")
    assert (query.paths, feature) == ((), "features")


def test_files_that_hold_no_features(tmp_path: Path, sides: Sides) -> None:
    path = tmp_path / "f.npz"
    with pytest.raises(InputError, match="no such feature file"):
        load_npz(path)
    save_features(path, *sides, feature="input")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="corrupt"):
        load_npz(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="corrupt"):
        load_npz(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(InputError, match="has no array query_values, only x;"):
        load_npz(path)
    np.savez(path, query_values=np.array([print], dtype=object))
    with pytest.raises(InputError, match="corrupt"):
        load_npz(path)


def change(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as held:
        np.savez(path, **{**held, **arrays})


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("query_values", np.arange(5), r"query_values: .*int64 \(5,\); are these identities or cameras\?"),
        ("query_values", np.zeros(5), r"features must be a floating-point \(N, D\) array, not float64 \(5,\)"),
        ("query_values", np.zeros((5, 9)), "query features have 9 dimensions, gallery features 4"),
        ("query_values", np.zeros((4, 4)), "identities in .*query_identities: 5 labels for 4 feature rows"),
        (
            "gallery_identities",
            np.zeros((12, 4)),
            r"one whole number per image, .*\(12, 4\); are these features\?",
        ),
        ("gallery_identities", np.full(12, 0.5), "label 0 is 0.5, not a whole number"),
        ("gallery_cameras", np.arange(11), "cameras in .*gallery_cameras: 11 labels for 12 feature rows"),
        (
            "gallery_values",
            np.full((12, 4), np.nan),
            "gallery_values: 12 feature rows hold NaN or infinity, the first: 0",
        ),
        (
            "gallery_values",
            np.diag([0, 0, np.inf, 0])[[0, 0, 2] * 4],
            "4 feature rows hold NaN or infinity, .*: 2, 5, 8",
        ),
        ("query_paths", np.array(["a"]), "1 paths for 5 feature rows"),
    ],
)
def test_each_mistake_is_reported(tmp_path: Path, sides: Sides, name: str, array: np.ndarray, words: str) -> None:
    path = tmp_path / "f.npz"
    save_features(path, *sides, feature="input")
    change(path, **{name: array})
    with pytest.raises(InputError, match=words) as raised:
        read_features(path)
    assert "\n" not in str(raised.value) and "f.npz" in str(raised.value)


def test_an_empty_gallery(tmp_path: Path, sides: Sides) -> None:
    nobody = Features(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    save_features(tmp_path / "f.npz", sides[0], nobody, feature="input")
    with pytest.raises(InputError, match="the gallery has no feature rows"):
        read_features(tmp_path / "f.npz")


def test_what_is_no_feature_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such feature file or folder"):
        read_features(tmp_path / "f.npz")
    (tmp_path / "f.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"read from .npz, .npy, .mat or a folder, not from '.h5'"):
        read_features(tmp_path / "f.h5")
    with pytest.raises(InputError, match=r"no features found; looked for query.npy .*; the folder holds f.h5"):
        read_features(tmp_path)
