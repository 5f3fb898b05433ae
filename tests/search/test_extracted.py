"""Extracted features of images that were moved or changed, and shards that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.checksums import write_with_checksum
from reid.io.shards import save_matrix
from reid.search import gallery
from reid.search.extracted import extracted_features

NAMES = [f"{identity}/c{camera}.jpg" for identity in range(3) for camera in range(4)]


def embed(paths: Sequence[str]) -> np.ndarray:
    rows = []
    for path in paths:
        content = Path(path).read_bytes()
        if content == b"broken":
            raise InputError(f"image 0 of 1: {path}: no whole image")
        rows.append(np.random.default_rng(list(content)).normal(size=8))
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "crops"


@pytest.fixture
def extracted(crops: Path, tmp_path: Path) -> Path:
    """Shards of five rows, in another order and not of unit length, as a network outputs them."""
    names = NAMES[::-1]
    values = 3 * embed([str(crops / name) for name in names])
    folder = tmp_path / "features" / "input" / "gallery"
    for number in range(0, len(names), 5):
        save_matrix(folder / f"{number // 5:06d}.npy", values[number : number + 5])
    rows = "".join(f"{name[0]},{name[3]},{crops / name}\n" for name in names)
    write_with_checksum(folder.with_suffix(".csv"), f"identity,camera,path\n{rows}".encode())
    return folder


def test_images_that_were_moved_or_changed(crops: Path, extracted: Path, tmp_path: Path) -> None:
    crops = crops.rename(tmp_path / "elsewhere")
    (crops / "0" / "new.jpg").write_bytes(b"new")
    (crops / "0" / "c0.jpg").write_bytes(b"broken")  # it was not when it was extracted
    listing, seen = gallery.list_crops(crops), list[str]()

    def count(paths: Sequence[str]) -> np.ndarray:
        seen.extend(paths)
        return embed(paths)

    features = extracted_features(extracted, listing, count)
    assert 0 < len(seen) <= 16
    np.testing.assert_allclose(features([str(crops / "1" / "c2.jpg")]), embed([str(crops / "1" / "c2.jpg")]), atol=1e-6)
    with gallery.Gallery.create(tmp_path / "index", model_id="m", dim=8) as index:
        summary = gallery.update_index(index, listing, features, progress=False)
    assert summary.added == 12 and summary.unreadable == {"0/new.jpg": f"has no feature in {extracted}"}


def test_what_does_not_fit_is_refused(crops: Path, extracted: Path, tmp_path: Path) -> None:
    listing = gallery.list_crops(crops)
    with pytest.raises(InputError, match="holds features of dimension 8, but the model outputs 4"):
        extracted_features(extracted, listing, lambda paths: embed(paths)[:, :4])
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "x.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="none of which are below"):
        extracted_features(extracted, gallery.list_crops(tmp_path / "others"), embed)
    with pytest.raises(InputError, match="no such folder of shards"):
        extracted_features(tmp_path / "none", listing, embed)
    table = extracted.with_suffix(".csv")
    content = table.read_text()
    write_with_checksum(table, "\n".join(line.rpartition(",")[0] for line in content.splitlines()).encode())
    with pytest.raises(InputError, match="do not say which images"):
        extracted_features(extracted, listing, embed)
    table.unlink()  # it is written last
    with pytest.raises(InputError, match="no labels next to it"):
        extracted_features(extracted, listing, embed)
