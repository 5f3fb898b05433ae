"""Codes next to the features change no result, whatever happens to the images and to the files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.search.gallery import Crop, Gallery, Labels, code_files, read_snapshot, search_snapshot, update_codes

DIM, SHARD = 64, 100


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_files, "CODED_ROWS", 40)
    monkeypatch.setattr(code_files, "_UNCODED_ROWS", 10)


def rows(first: int, count: int, decay: float = 6.0) -> dict[str, np.ndarray]:
    """Unit rows by name, of which few directions hold most of the variance; every tenth repeats the one before."""
    found = {}
    for number in range(first, first + count):
        seed = number - (number % 10 == 9)
        row = np.random.default_rng(seed).normal(size=DIM) * np.exp(-np.arange(DIM) / decay)
        found[f"{number:04d}.jpg"] = (row / np.linalg.norm(row)).astype(np.float32)
    return found


def add(gallery: Gallery, features: dict[str, np.ndarray]) -> None:
    digests = {name: hashlib.sha256(name.encode()).digest() for name in features}
    gallery.commit(
        [(Crop(name, 1, 1, Labels("1", str(int(name[3]) % 3), "")), digests[name]) for name in features],
        {digests[name]: row for name, row in features.items()},
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with Gallery.create(tmp_path / "i", model_id="m", dim=DIM, shard_size=SHARD) as gallery:
        add(gallery, rows(0, 250))
        assert update_codes(gallery) == 250 and update_codes(gallery) == 0
    return tmp_path / "i"


def results(folder: Path, **options: Any) -> list[list[tuple[str, float]]]:
    queries = np.stack(list(rows(0, 3).values()) + list(rows(5000, 3).values()))
    snapshot = read_snapshot(folder)
    mask = None if "camera" not in options else snapshot.filter_mask([options["camera"]])
    found = search_snapshot(snapshot, queries, 12, mask=mask)
    return [[(result.path, result.distance) for result in some] for some in found]


def check_equal_without_codes(folder: Path, coded: int | None = None) -> None:
    """Compare searches with and without codes; `coded` is the number of rows that have some."""
    if coded is not None:
        assert sum(len(codes) for codes in read_snapshot(folder).coded_parts[1] if codes) == coded
    found = results(folder), results(folder, camera="1")
    moved = [(path, path.rename(folder / path.name)) for path in folder.glob("features/*.codes.npz")]
    assert (results(folder), results(folder, camera="1")) == found
    for path, place in moved:
        place.rename(path)


def test_results_are_the_same_while_images_come_and_go(index: Path) -> None:
    pytest.importorskip("numkong")
    check_equal_without_codes(index, 250)
    with Gallery.open(index) as gallery:
        add(gallery, rows(250, 8))
        assert update_codes(gallery) == 0  # few
        gallery.set_removed(["0000.jpg", "0120.jpg"], removed=True)
        gallery.commit(deleted=["0001.jpg"])
    check_equal_without_codes(index, 250)
    with Gallery.open(index) as gallery:
        add(gallery, rows(258, 20))
        assert update_codes(gallery) == 78  # those of the last shard
    check_equal_without_codes(index, 278)
    with Gallery.open(index) as gallery:
        assert gallery.compact() == 3
        check_equal_without_codes(index, 0)
        assert update_codes(gallery) == 275
    check_equal_without_codes(index, 275)
    with Gallery.open(index):
        assert len(list((index / "features").iterdir())) == 6


def test_rows_that_cannot_be_found_are_not_read(index: Path) -> None:
    pytest.importorskip("numkong")
    snapshot = read_snapshot(index)
    search_snapshot(snapshot, np.stack(list(rows(0, 1).values())), 3)
    assert 3 < snapshot._verified.sum() < 220
    shard = index / "features" / "000000-000000.npy"
    data = bytearray(shard.read_bytes())
    data[-SHARD * DIM * 4 + 7] ^= 1  # in the row that is found
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"first that of 0000\.jpg"):
        search_snapshot(read_snapshot(index), np.stack(list(rows(0, 1).values())), 3)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "of another shard", "of another width", "empty"])
def test_codes_that_cannot_be_used_are_written_again(index: Path, damage: str) -> None:
    path = index / "features" / "000000-000001.codes.npz"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "of another shard":
        path.write_bytes((index / "features" / "000000-000000.codes.npz").read_bytes())
    elif damage == "of another width":
        layout = code_files.ShardLayout(index, 0, DIM + 1, SHARD)
        wide = np.pad(np.stack(list(rows(0, 100).values())), ((0, 0), (0, 1)))
        code_files.write_codes(layout, 1, wide, read_snapshot(index).checksums[100:200])
    else:
        path.write_bytes({"cut": data[:-100], "changed": data[:900] + b"!" + data[901:], "empty": b""}[damage])
    check_equal_without_codes(index, 150)
    with Gallery.open(index) as gallery:
        assert update_codes(gallery) == 100
    assert path.read_bytes() == data


def test_rows_whose_codes_do_not_pay_are_encoded_once(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "i", model_id="m", dim=DIM, shard_size=SHARD) as gallery:
        add(gallery, rows(0, 60, decay=1e9))
        assert update_codes(gallery) == 0
        path = tmp_path / "i" / "features" / "000000-000000.codes.npz"
        written = path.stat().st_mtime_ns
        assert update_codes(gallery) == 0 and path.stat().st_mtime_ns == written
        unfinished = tmp_path / "i" / "features" / ".000000-000000.codes.npz.writing"
        unfinished.touch()
    check_equal_without_codes(tmp_path / "i", 0)
    with Gallery.open(tmp_path / "i"):
        assert not unfinished.exists()
