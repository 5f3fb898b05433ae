"""Features that cannot be ranked: errors name side and row, wherever the rows are stored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_reference import drawn

from reid.errors import InputError
from reid.io.shards import Shards
from reid.ranking import evaluate, top_k
from reid.ranking.exact import gallery_rows as source
from reid.records import Features

ROWS = 1200
STORAGES = ("memory map", "shards", "tensor")


@pytest.fixture(autouse=True)
def _small_tiles_and_no_warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The row named must be counted from the start of the gallery; one line is printed, nothing from within NumPy."""
    monkeypatch.setattr(source, "_TILE_BYTES", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def stored(values: np.ndarray, storage: str, folder: Path) -> Any:
    if storage == "tensor":
        return torch.from_numpy(values)
    if storage == "shards":
        return Shards([values[:1], values[1:]])
    path = folder / f"{len(values)}.npy"
    np.save(path, values)
    return np.load(path, mmap_mode="r")


def scored(query: Any, gallery: Any, **options: Any) -> Any:
    def labeled(values: Any) -> Features:
        # Matches stand at the start of the gallery.
        identities = np.minimum(np.arange(len(values)) + 1, 90)
        return Features(values, identities, np.full(len(values), 1 if len(values) < ROWS else 2))

    return evaluate(labeled(query), labeled(gallery), **options)


def sides() -> tuple[np.ndarray, np.ndarray]:
    return drawn("random", 20, ROWS, 6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("call", [scored, lambda q, g, **o: top_k(q, g, 3, **o)], ids=["evaluate", "top_k"])
def test_rows_that_are_not_finite(call: Any, value: float, storage: str, metric: str, tmp_path: Path) -> None:
    query, gallery = sides()
    gallery[[703, 705], [5, 0]] = value
    with pytest.raises(InputError, match=r"^2 gallery feature rows hold NaN or infinity, the first: 703, 705$"):
        call(stored(query, storage, tmp_path), stored(gallery, storage, tmp_path), metric=metric)
    query, gallery = sides()
    query[7, 2] = value
    with pytest.raises(InputError, match=r"^1 query feature rows hold NaN or infinity, the first: 7$"):
        call(stored(query, storage, tmp_path), stored(gallery, storage, tmp_path), metric=metric)


def test_a_row_that_is_a_true_match_is_named_too(tmp_path: Path) -> None:
    # These are read first, out of order.
    query, gallery = sides()
    gallery[11] = np.nan
    for metric in ("euclidean", "cosine"):
        with pytest.raises(InputError, match=r"gallery feature rows hold NaN or infinity, the first: 11$"):
            scored(stored(query, "memory map", tmp_path), stored(gallery, "memory map", tmp_path), metric=metric)


def test_rows_of_bfloat16_that_are_not_finite() -> None:
    query, gallery = sides()
    gallery[703] = np.nan
    with pytest.raises(InputError, match="the first: 703"):
        scored(*(torch.from_numpy(part).bfloat16() for part in (query, gallery)))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 1e30), (np.float64, 1e30), (np.float64, 1e300)])
def test_rows_too_long_for_float32(dtype: type[np.floating], value: float, storage: str, tmp_path: Path) -> None:
    for side, row in (("gallery", 703), ("query", 7)):
        query, gallery = (part.astype(dtype) for part in sides())
        (gallery if side == "gallery" else query)[row] = value
        parts = stored(query, storage, tmp_path), stored(gallery, storage, tmp_path)
        for metric in ("euclidean", "cosine"):
            with pytest.raises(InputError, match=rf"^{side} feature row {row} has .* too large for float32 distances"):
                scored(*parts, metric=metric)


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_of_zeros_have_no_direction(storage: str, tmp_path: Path) -> None:
    for side, row in (("gallery", 703), ("query", 7)):
        query, gallery = sides()
        (gallery if side == "gallery" else query)[row] = 0.0
        parts = stored(query, storage, tmp_path), stored(gallery, storage, tmp_path)
        with pytest.raises(InputError, match=rf"^1 {side} feature rows are zero and have no direction; first: {row}$"):
            scored(*parts, metric="cosine")
        scored(*parts)  # a Euclidean distance to zero is one


def test_widths_that_differ_or_are_nothing() -> None:
    query, gallery = sides()
    with pytest.raises(InputError, match=r"\(20, 5\) and gallery features \(1200, 6\) .* same width"):
        scored(query[:, :5], gallery)
    with pytest.raises(InputError, match=r"\(20, 0\) have no dimensions to compare"):
        scored(query[:, :0], gallery[:, :0])
    with pytest.raises(InputError, match=r"\(6,\) and gallery features \(1200, 6\) must be two matrices"):
        top_k(query[0], gallery, 3)


def test_a_tensor_and_an_array() -> None:
    query, gallery = sides()
    for parts in ((torch.from_numpy(query), gallery), (query, torch.from_numpy(gallery))):
        with pytest.raises(InputError, match="must be tensors on the same device, or both arrays"):
            scored(*parts)


def test_names_that_mean_nothing() -> None:
    query, gallery = sides()
    with pytest.raises(InputError, match="unknown first pass 'int8'"):
        scored(query, gallery, first_pass="int8")
    with pytest.raises(InputError, match="did you mean cosine"):
        scored(query, gallery, metric="cosin")
