from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_reference import KINDS, SIZES, distances, drawn, unit

from reid.errors import InputError
from reid.io.shards import Shards
from reid.ranking import search, top_k
from reid.ranking.exact import gallery_rows as source
from reid.ranking.exact.first_pass import integers_exact
from reid.ranking.search import Neighbors

PASSES = ("float32", "integers")


def naive(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All distances, a stable sort, the first k."""
    found = distances(query, gallery)
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(found, order, axis=1)


def assert_equal(found: Neighbors, expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert found.indices.dtype == np.int64 and found.distances.dtype == np.float64
    assert np.array_equal(found.indices, expected[0])
    assert np.array_equal(found.distances, expected[1])


def available(width: int) -> list[str]:
    return [name for name in PASSES if name == "float32" or integers_exact(width)]


@pytest.mark.parametrize("width", [1, 3, 37, 1025])
@pytest.mark.parametrize("kind", [*KINDS, *SIZES])
def test_equals_a_stable_sort(kind: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = drawn(kind, 15, 520, width)
    gallery[[3, 300, 519]] = query[4]
    indices, nearest = naive(query, gallery, 100)
    for tile, k, block, first_pass in (
        (1, 1, 4, "integers"),
        (1, 10, 1000, "integers"),
        (1 << 24, 10, 7, "integers"),
        (1, 10, 7, "float32"),
        (1 << 24, 100, 1000, "float32"),
    ):
        if first_pass in available(width):
            monkeypatch.setattr(source, "_TILE_BYTES", tile)
            found = top_k(query, gallery, k, block=block, first_pass=first_pass)
            assert_equal(found, (indices[:, :k], nearest[:, :k]))


@pytest.mark.parametrize("kind", ["random", "duplicated", "lengths"])
@pytest.mark.parametrize("k", [1, 2, 64, 255, 256, 257, 599, 600])
def test_any_number_of_neighbors(kind: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiles of 256: k below, at and above that, and the whole gallery.
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    query, gallery = drawn(kind, 9, 600, 8)
    for first_pass in available(8):
        assert_equal(top_k(query, gallery, k, block=4, first_pass=first_pass), naive(query, gallery, k))


def test_more_equal_rows_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # All rows but a few at one distance, behind and before them: found plainly, and only for the queries concerned.
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    rng = np.random.default_rng(0)
    query = rng.normal(size=(6, 5)).astype(np.float32)
    gallery = np.repeat(query[:1] + 1, 5 + search._SPARE + 300, axis=0)
    gallery[rng.choice(len(gallery), 12, replace=False)] = query[rng.integers(0, 6, 12)]
    asked: list[int] = []
    plainly = search._search_directly

    def watched(rows: Any, places: Any, row: int, k: int) -> Any:
        asked.append(row)
        return plainly(rows, places, row, k)

    monkeypatch.setattr(search, "_search_directly", watched)
    for first_pass in available(5):
        assert_equal(top_k(query, gallery, 5, first_pass=first_pass), naive(query, gallery, 5))
    assert asked
    # Rows apart need no such thing.
    asked.clear()
    query, gallery = drawn("random", 6, 600, 5)
    assert_equal(top_k(query, gallery, 5), naive(query, gallery, 5))
    assert not asked


def test_equal_rows_in_every_tile_are_ordered_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    gallery = np.random.default_rng(1).normal(size=(1000, 7)).astype(np.float32)
    copies = [700, 20, 999, 255, 256, 512]
    gallery[copies] = gallery[300]
    found = top_k(gallery[300:301], gallery, 8)
    assert found.indices[0, :7].tolist() == sorted([*copies, 300]) and not found.distances[0, :7].any()
    assert found.distances[0, 7] > 0


@pytest.mark.parametrize("storage", ["memory map", "shards", "tensor"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_storage_and_metric(storage: str, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    query, gallery = drawn("clustered", 9, 600, 16)
    expected = naive(unit(query), unit(gallery), 20) if metric == "cosine" else naive(query, gallery, 20)
    stored: tuple[Any, Any]
    if storage == "tensor":
        stored = torch.from_numpy(query), torch.from_numpy(gallery)
    elif storage == "shards":
        stored = query, Shards([gallery[:1], gallery[1:1], gallery[1:400], gallery[400:]])
    else:
        np.save(tmp_path / "gallery.npy", gallery)
        stored = query, np.load(tmp_path / "gallery.npy", mmap_mode="r")
    for first_pass in available(16):
        assert_equal(top_k(*stored, 20, metric=metric, first_pass=first_pass), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype: type[np.floating]) -> None:
    query, gallery = drawn("lengths", 9, 300, 16, dtype=dtype)
    assert_equal(top_k(query, gallery, 7), naive(query, gallery, 7))


@pytest.mark.parametrize("k", [0, -1, 6, 1000])
def test_k_must_be_in_the_gallery(k: int) -> None:
    query, gallery = drawn("random", 2, 5, 3)
    with pytest.raises(InputError, match=rf"k {k}: must be in \[1, 5\]"):
        top_k(query, gallery, k)


def test_no_query_and_no_gallery() -> None:
    query, gallery = drawn("random", 2, 5, 3)
    found = top_k(query[:0], gallery, 4)
    assert found.indices.shape == found.distances.shape == (0, 4)
    with pytest.raises(InputError, match="the number of gallery rows"):
        top_k(query, gallery[:0], 1)


def test_invalid_arguments_are_errors() -> None:
    query, gallery = drawn("random", 2, 5, 3)
    with pytest.raises(InputError, match="did you mean euclidean"):
        top_k(query, gallery, 1, metric="euclidian")
    with pytest.raises(InputError, match="did you mean integers"):
        top_k(query, gallery, 1, first_pass="integer")
    with pytest.raises(InputError, match="block 0: must be at least 1 query"):
        top_k(query, gallery, 1, block=0)
    with pytest.raises(InputError, match=r"\(2, 2\).*\(5, 3\)"):
        top_k(query[:, :2], gallery, 1)
