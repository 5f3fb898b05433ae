from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from reid.errors import InputError
from reid.io.feature_files import read_features, read_multi_query
from reid.records import Features

Sides = tuple[Features, Features]


def assert_equal(found: Features, expected: Features) -> None:
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.values.flags.c_contiguous and found.values.dtype == np.float32
    np.testing.assert_array_equal(found.identities, expected.identities)
    np.testing.assert_array_equal(found.cameras, expected.cameras)
    assert found.identities.dtype == np.int64


def layumi(path: Path, sides: Sides, **changes: object) -> Path:
    content: dict[str, object] = {}
    for part, side in zip(("query", "gallery"), sides, strict=True):
        content |= {f"{part}_f": side.values, f"{part}_label": side.identities.tolist()}
        content |= {f"{part}_cam": side.cameras.tolist()}
    content |= changes
    scipy.io.savemat(path, {name: value for name, value in content.items() if value is not None})
    return path


def zhong(root: Path, sides: Sides, *, flat: bool) -> Path:
    """Features in feat/, labels in data/, as MATLAB writes them: doubles in a column."""
    features, labels = (root, root) if flat else (root / "feat" / "Market-1501", root / "data" / "Market-1501")
    for folder in (features, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for part, name, side in (("query", "query", sides[0]), ("gallery", "test", sides[1])):
        scipy.io.savemat(features / f"ResNet_50_IDE_{name}.mat", {"feat": side.values.T})
        scipy.io.savemat(labels / f"{name}ID.mat", {f"{part}ID": side.identities[:, None].astype(np.float64)})
        scipy.io.savemat(labels / f"{name}Cam.mat", {"CAM": side.cameras[None].astype(np.uint8)})
    return features / "ResNet_50_IDE_test.mat"


def test_layumi(tmp_path: Path, sides: Sides) -> None:
    path = layumi(tmp_path / "pytorch_result.mat", sides)
    for given in (path, tmp_path):
        query, gallery, name = read_features(given)
        assert_equal(query, sides[0])
        assert_equal(gallery, sides[1])
        assert name == "pytorch_result"
    assert read_multi_query(path) is None


def test_layumis_images_for_multi_query(tmp_path: Path, sides: Sides) -> None:
    path = layumi(tmp_path / "pytorch_result.mat", sides)
    images = {"mquery_f": sides[1].values, "mquery_label": sides[1].identities, "mquery_cam": sides[1].cameras}
    scipy.io.savemat(tmp_path / "multi_query.mat", images)
    for given in (path, tmp_path):
        pool = read_multi_query(given)
        assert pool is not None
        assert_equal(pool, sides[1])


@pytest.mark.parametrize("flat", [True, False])
def test_zhunzhong07_on_market(tmp_path: Path, sides: Sides, flat: bool) -> None:
    path = zhong(tmp_path, sides, flat=flat)
    for given in (path, path.with_name("ResNet_50_IDE_query.mat"), path.parent):
        query, gallery, name = read_features(given)
        assert_equal(query, sides[0])
        assert_equal(gallery, sides[1])
        assert name == "ResNet_50_IDE"


def test_zhunzhong07_on_cuhk03(tmp_path: Path, sides: Sides) -> None:
    query, gallery = sides
    both = [np.concatenate([getattr(side, name) for side in sides]) for name in ("values", "identities", "cameras")]
    order = np.random.default_rng(1).permutation(17)
    place = np.argsort(order) + 1
    scipy.io.savemat(tmp_path / "ResNet_50_IDE_detected.mat", {"feat": both[0][order].T})
    content = {"labels": both[1][order], "camId": both[2][order], "query_idx": place[:5], "gallery_idx": place[5:]}
    config = tmp_path / "cuhk03_new_protocol_config_detected.mat"
    scipy.io.savemat(config, {**content, "train_idx": [1]})
    for given in (tmp_path / "ResNet_50_IDE_detected.mat", tmp_path):
        found = read_features(given)
        assert_equal(found[0], query)
        assert_equal(found[1], gallery)
        assert found[2] == "ResNet_50_IDE_detected"
    scipy.io.savemat(config, {**content, "query_idx": place[:5] + 13})
    with pytest.raises(InputError, match="query_idx goes beyond the 17 images"):
        read_features(tmp_path)


def test_several_networks_in_one_folder(tmp_path: Path, sides: Sides) -> None:
    path = zhong(tmp_path, sides, flat=True)
    path.with_name("CaffeNet_IDE_query.mat").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"several sets of features, CaffeNet_IDE_query.mat, ResNet_50_IDE_query.mat"):
        read_features(tmp_path)


def version73(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(1000))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gallery_cam": None}, "has no gallery_cam, only query_f, query_label, query_cam, gallery_f, gallery_label"),
        ({"gallery_cam": None, "query_f": None}, "has no gallery_cam and no query_f"),
        ({"query_label": [1, 2]}, "query_label: 2 labels for 5 feature rows"),
        ({"query_f": np.arange(5)}, r"query_f: .* not int64 \(1, 5\); are these identities or cameras\?"),
        ({"query_label": np.zeros((5, 4))}, r"query_label: .*\(5, 4\); are these features\?"),
        ({"query_f": np.zeros((5, 3))}, "query features have 3 dimensions, gallery features 4"),
        ({"gallery_f": np.full((12, 4), np.inf)}, "gallery_f: 12 feature rows hold NaN or infinity"),
        ({"gallery_label": np.full(12, 1.5)}, "label 0 is 1.5, not a whole number"),
        ({"query_label": "x"}, "must be one whole number per image"),
    ],
)
def test_each_mistake_is_reported(tmp_path: Path, sides: Sides, changes: dict[str, object], words: str) -> None:
    path = layumi(tmp_path / "pytorch_result.mat", sides, **changes)
    with pytest.raises(InputError, match=words) as raised:
        read_features(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "corrupt, truncated, or not a MATLAB file"),
        (lambda path: path.write_bytes(path.read_bytes()[:150]), "corrupt, truncated, or not a MATLAB file|holds"),
        (lambda path: path.write_bytes(b""), "corrupt, truncated, or not a MATLAB file"),
        (lambda path: path.write_bytes(b"no" * 300), "corrupt, truncated, or not a MATLAB file"),
        (version73, "version 7.3, which is not supported; save it again with"),
    ],
)
def test_broken_files(tmp_path: Path, sides: Sides, harm: Callable[[Path], object], words: str) -> None:
    path = layumi(tmp_path / "pytorch_result.mat", sides)
    harm(path)
    with pytest.raises(InputError, match=words):
        read_features(path)


def test_what_zhunzhong07s_files_may_lack(tmp_path: Path, sides: Sides) -> None:
    path = zhong(tmp_path, sides, flat=True)
    (tmp_path / "testCam.mat").unlink()
    with pytest.raises(InputError, match=r"no labels; testCam.mat is neither next to it nor in data/"):
        read_features(path)
    scipy.io.savemat(tmp_path / "testCam.mat", {"a": [1], "b": [2]})
    with pytest.raises(InputError, match=r"testCam.mat: holds 2 variables \(a, b\), must be one"):
        read_features(path)
    scipy.io.savemat(tmp_path / "testID.mat", {"a": np.arange(7)})
    scipy.io.savemat(tmp_path / "testCam.mat", {"a": np.arange(7)})
    with pytest.raises(InputError, match=r"features \(4, 12\) for 7 labels; must be \(D, N\)"):
        read_features(path)
    scipy.io.savemat(tmp_path / "other.mat", {"a": [1]})
    with pytest.raises(InputError, match=r"other.mat: holds a; it must hold gallery_f"):
        read_features(tmp_path / "other.mat")
