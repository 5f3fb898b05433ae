"""Approximate float32 distances between query and gallery rows, a block of queries at a time.

They are meant for inspection, not for ranking: their last bits depend on the block size and on the library.
`reid.ranking.exact.ranks` compares exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from reid.errors import InputError, unknown_name
from reid.ranking import arrays
from reid.ranking.exact.distances import squared_lengths

METRICS = ("euclidean", "cosine")

# Rows converted to float64 at once, which avoids a float64 copy of a whole gallery.
_ROWS = 2048


def distance_blocks(
    query: np.ndarray, gallery: np.ndarray, *, metric: str = "euclidean", block: int = 512
) -> Iterator[tuple[int, np.ndarray]]:
    """Compute all distances, `block` queries at a time.

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating.
        metric: "euclidean" for squared distances |q|^2 - 2 q.g + |g|^2, where rounding may leave a zero slightly
            negative, or "cosine" for 1 - cos.
        block: Queries per block.

    Yields:
        The index of the first query and the (b, G) float32 distances, b <= block. The array is one buffer: the caller
        may change it, and the next block overwrites it.

    Raises:
        InputError: If the metric is unknown, the dimensions differ, the block is below 1, rows are too long for float32
            or, with "cosine", rows are zero.
    """
    query, gallery = (
        arrays.to_numpy(arrays.as_matrix(side, name)) for side, name in ((query, "query"), (gallery, "gallery"))
    )
    check_sides(query, gallery, metric)
    if block < 1:
        raise InputError(f"block {block}: must be at least 1 query")
    if metric == "cosine":
        query, gallery = normalize_rows(query), normalize_rows(gallery)
        yield from _products(query, gallery, -1.0, np.ones(len(query)), None, block)
    else:
        with np.errstate(over="ignore"):  # an infinity is reported with its row below
            query, gallery = np.asarray(query, dtype=np.float32), np.asarray(gallery, dtype=np.float32)
        yield from _products(query, gallery, -2.0, _squared_norms(query), _squared_norms(gallery), block)


def check_sides(query: Any, gallery: Any, metric: str) -> None:
    """Check that there is a distance between the rows of two sides.

    Args:
        query: (Q, D) floating, array, memory map, shards or tensor.
        gallery: (G, D) floating, the same.
        metric: Name of the metric.

    Raises:
        InputError: If the metric is unknown, or the sides are not matrices of the same width, at least 1.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if len(query.shape) != 2 or len(gallery.shape) != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features {tuple(query.shape)} and gallery features {tuple(gallery.shape)} must be two matrices of "
            "the same width; were they extracted by different models?"
        )
    if not query.shape[1]:
        raise InputError(f"query features {tuple(query.shape)} have no dimensions to compare")


def normalize_rows(values: Any, *, side: str = "", numbers: np.ndarray | None = None) -> Any:
    """Divide each row by its Euclidean norm, computed in float64 and summed in a fixed order.

    Args:
        values: (N, D) floating array or tensor.
        side: Name of the rows in error messages, such as "gallery".
        numbers: (N,) row numbers in error messages, 0 .. N - 1 by default.

    Returns:
        (N, D) float32 rows of length 1; a tensor on the same device if `values` is one.

    Raises:
        InputError: If a row is zero (it has no direction), has NaN or infinity, or is too long for float32.
    """
    unit = arrays.empty(tuple(values.shape), "float32", values)
    names = np.arange(len(values)) if numbers is None else numbers
    zero: list[int] = []
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        with np.errstate(over="ignore"):  # an infinity is reported with its row
            squared = squared_lengths(rows)
        lengths = arrays.to_numpy(squared)
        if not np.isfinite(lengths).all():
            check_finite(rows, side, names[start : start + _ROWS])
        _check_length(lengths, names[start : start + _ROWS], side)
        zero += names[start + np.flatnonzero(lengths == 0)].tolist()
        unit[start : start + _ROWS] = rows / (squared + (squared == 0))[:, None] ** 0.5
    if zero:
        first = ", ".join(map(str, zero[:5]))
        share = f"{len(zero)} of {len(values)}" if numbers is None else f"{len(zero)}"
        rows_are = f"{side} feature rows".strip()
        raise InputError(f"{share} {rows_are} are zero and have no direction; first: {first}")
    return unit


def check_finite(values: Any, side: str, numbers: np.ndarray) -> None:
    """Check that rows hold neither NaN nor infinity.

    Args:
        values: (n, D) floating array or tensor.
        side: Name of the rows in error messages, such as "gallery".
        numbers: (n,) row numbers in error messages.

    Raises:
        InputError: If a value is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(arrays.to_numpy(arrays.as_type(values, "float64"))).all(axis=1))
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
    """Yield blocks of factor * q.g + query_term + gallery_term in one reused float32 buffer."""
    query_term = query_term.astype(np.float32)
    gallery_term = None if gallery_term is None else gallery_term.astype(np.float32)
    buffer = np.empty((min(block, len(query)), len(gallery)), dtype=np.float32)
    for start in range(0, len(query), block):
        rows = query[start : start + block]
        distances = np.matmul(rows * np.float32(factor), gallery.T, out=buffer[: len(rows)])
        for row, term in zip(distances, query_term[start : start + block], strict=True):
            # Row by row, so that the row is still in the cache for the second addition.
            row += term
            if gallery_term is not None:
                row += gallery_term
        yield start, distances


def _squared_norms(values: np.ndarray) -> np.ndarray:
    """Return (N,) float64 squared norms that keep squared distances within the range of float32."""
    norms = np.empty(len(values), dtype=np.float64)
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS].astype(np.float64)
        norms[start : start + _ROWS] = np.einsum("ij,ij->i", rows, rows)
    _check_length(norms, np.arange(len(norms)), "")
    return norms


def _check_length(squared: np.ndarray, numbers: np.ndarray, side: str) -> None:
    if len(squared) and not squared.max() <= np.finfo(np.float32).max / 4:
        row = int(squared.argmax())
        name = f"{side} feature row".strip()
        raise InputError(
            f"{name} {numbers[row]} has the squared norm {squared[row]:.3g}, too large for float32 distances; has the "
            "training diverged? Otherwise divide all features by a constant, which keeps the ranking"
        )
