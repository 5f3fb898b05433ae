"""Distances between query and gallery rows, a block of queries at a time, in float32: for looking at, not for ranking.

Their last bits depend on the block size and on the library; `reid.ranking.exact.ranks` compares exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking import arrays
from reid.ranking.exact.distances import squared_lengths

METRICS = ("euclidean", "cosine")

# Rows converted to float64 at once, so that no float64 copy of a whole gallery is made.
_ROWS = 2048


def distance_blocks(
    query: np.ndarray, gallery: np.ndarray, *, metric: str = "euclidean", block: int = 512
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index of the first query, distances (b, G) float32) for `block` queries at a time, b <= block.

    query: (Q, D), gallery: (G, D), floating. `euclidean` gives squared distances |q|^2 - 2 q.g + |g|^2 (rounding may
    leave a zero slightly negative), `cosine` gives 1 - cos. The yielded array is one buffer: the caller may change it,
    and the next block overwrites it.
    Raises InputError for an unknown metric, differing dimensions, a block below 1, rows too long for float32 and, with
    `cosine`, rows of zeros.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features {query.shape} and gallery features {gallery.shape} must be two matrices of one width; "
            "were they extracted by different models?"
        )
    if block < 1:
        raise InputError(f"a block holds at least one query, not {block}")
    if metric == "cosine":
        query, gallery = normalize_rows(query), normalize_rows(gallery)
        yield from _products(query, gallery, -1.0, np.ones(len(query)), None, block)
    else:
        with np.errstate(over="ignore"):  # an infinity is told by its row below
            query, gallery = np.asarray(query, dtype=np.float32), np.asarray(gallery, dtype=np.float32)
        yield from _products(query, gallery, -2.0, _squared_norms(query), _squared_norms(gallery), block)


def normalize_rows(values: Any, *, side: str = "", numbers: np.ndarray | None = None) -> Any:
    """Each row over its float64 Euclidean norm, summed in a fixed order: (N, D) floating -> (N, D) float32.

    A tensor gives a tensor on its device. side, numbers: what errors call the rows, such as "gallery", and (N,)
    integers where not 0 .. N - 1. Raises InputError for rows of zeros, which have no direction, and for rows with NaN
    or infinity or too long for float32.
    """
    unit = arrays.empty(tuple(values.shape), "float32", values)
    called = np.arange(len(values)) if numbers is None else numbers
    rows_are = f"{side} feature rows".strip()
    zero: list[int] = []
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        with np.errstate(over="ignore"):  # an infinity is told by its row
            squared = squared_lengths(rows)
        told = arrays.host(squared)
        if not np.isfinite(told).all():
            refuse_broken(rows, side, called[start : start + _ROWS])
        _refuse_long(told, called[start : start + _ROWS], side)
        zero += called[start + np.flatnonzero(told == 0)].tolist()
        unit[start : start + _ROWS] = rows / (squared + (squared == 0))[:, None] ** 0.5
    if zero:
        first = ", ".join(map(str, zero[:5]))
        share = f"{len(zero)} of {len(values)}" if numbers is None else f"{len(zero)}"
        raise InputError(f"{share} {rows_are} are zero, which has no direction; first: {first}")
    return unit


def refuse_broken(values: Any, side: str, numbers: np.ndarray) -> None:
    """Raise InputError where rows (n, D), called `numbers` (n,), hold NaN or infinity."""
    broken = np.flatnonzero(~np.isfinite(arrays.host(arrays.as_type(values, "float64"))).all(axis=1))
    if len(broken):
        first = ", ".join(map(str, numbers[broken[:5]]))
        rows_are = f"{side} feature rows".strip()
        raise InputError(f"{len(broken)} {rows_are} hold NaN or infinity, the first: {first}")


def _products(
    query: np.ndarray,
    gallery: np.ndarray,
    factor: float,
    query_term: np.ndarray,
    gallery_term: np.ndarray | None,
    block: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of factor * q.g + query_term + gallery_term, in one reused float32 buffer."""
    query_term = query_term.astype(np.float32)
    gallery_term = None if gallery_term is None else gallery_term.astype(np.float32)
    buffer = np.empty((min(block, len(query)), len(gallery)), dtype=np.float32)
    for start in range(0, len(query), block):
        rows = query[start : start + block]
        distances = np.matmul(rows * np.float32(factor), gallery.T, out=buffer[: len(rows)])
        for row, term in zip(distances, query_term[start : start + block], strict=True):
            # Row by row, so that the second addition finds the row in the cache.
            row += term
            if gallery_term is not None:
                row += gallery_term
        yield start, distances


def _squared_norms(values: np.ndarray) -> np.ndarray:
    """(N,) float64; InputError where a squared distance to another such row would leave the range of float32."""
    norms = np.empty(len(values), dtype=np.float64)
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS].astype(np.float64)
        norms[start : start + _ROWS] = np.einsum("ij,ij->i", rows, rows)
    _refuse_long(norms, np.arange(len(norms)), "")
    return norms


def _refuse_long(squared: np.ndarray, numbers: np.ndarray, side: str) -> None:
    if len(squared) and not squared.max() <= np.finfo(np.float32).max / 4:
        row = int(squared.argmax())
        called = f"{side} feature row".strip()
        raise InputError(
            f"{called} {numbers[row]} has the squared norm {squared[row]:.3g}, too large for float32 distances; has "
            "the training diverged? Otherwise divide all features by a constant, which keeps the ranking"
        )
