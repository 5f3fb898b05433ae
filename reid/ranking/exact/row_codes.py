"""8-bit codes of gallery rows that bound every distance from below, at a fraction of the bytes of the rows.

Rows are centered and written in the orthonormal directions in which they vary most. Of the first of these, which hold
most of the variance, every row keeps 8-bit integers with a scale, and of all others only their length. The product of
the integers of two rows then bounds their distance; docs/ranking.md has the derivation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking.exact import bounds

# Share of the variance that the coded directions hold.
KEPT_VARIANCE = 15 / 16
# Integers per row are a multiple of this, a vector register.
_STEP = 32
# Products of 127 x 127 summed over more would not be exact in float32.
_MAX_WIDTH = 1024
_LARGEST = 127
_SAMPLE_ROWS = 8192
_CHUNK_ROWS = 4096
# Lengths up to this, and scales from this: no number of the bound overflows or is rounded to zero.
_MAX_LENGTH = 2.0**50
_MIN_SCALE = 2.0**-100
# Rounding of the bound in units of U times the square of both lengths; about 12 are needed.
_ROUNDINGS = 20


@dataclass(frozen=True)
class RowCodes:
    """Codes of n rows.

    Attributes:
        center: (D,) float64, subtracted from rows and queries.
        directions: (D, m) float64 with orthonormal columns.
        integers: (n, m) int8, the row in these directions, divided by its scale and rounded.
        scales: (n,) float32.
        squared: (n,) float32, |g - center|^2.
        rest: (n,) float32, at least the length of what the directions leave out of the row.
        spread: At least the length of the rounding error of any row, divided by its scale.
        longest: At least the length of any centered row and of any row that `integers` and `scales` describe.
    """

    center: np.ndarray
    directions: np.ndarray
    integers: np.ndarray
    scales: np.ndarray
    squared: np.ndarray
    rest: np.ndarray
    spread: float
    longest: float

    def __len__(self) -> int:
        return len(self.integers)


@dataclass(frozen=True)
class CodedQueries:
    """Queries in the directions of `RowCodes`, with the numbers of their bounds.

    Attributes:
        integers: (Q, m) int8.
        factors: (Q,) float32, twice the scale, by which the products of integers are multiplied.
        margins: (Q,) float32, for the rounding error of the rows in units of their scale.
        rest: (Q,) float32, twice the length of what the directions leave out.
        constants: (Q,) float32, what is added to every bound.
    """

    integers: np.ndarray
    factors: np.ndarray
    margins: np.ndarray
    rest: np.ndarray
    constants: np.ndarray


@functools.cache
def integer_products() -> Callable[..., Any] | None:
    """Find the function that multiplies 8-bit integers.

    Returns:
        `numkong.cdist`, or None if NumKong is not installed or its products are not exact.
    """
    try:
        import numkong
    except ImportError:
        return None
    extreme = np.full((2, _MAX_WIDTH), _LARGEST, dtype=np.int8)
    extreme[1] = -_LARGEST
    found = np.empty((2, 2), dtype=np.float32)
    numkong.cdist(extreme, extreme, "dot", out=found)
    exact = extreme.astype(np.float64) @ extreme.T.astype(np.float64)
    return numkong.cdist if (found == exact).all() else None


def encode_rows(rows: Any) -> RowCodes | None:
    """Encode rows in the directions in which they vary most.

    It takes about a second per 65,536 rows of 512 dimensions on one core.

    Args:
        rows: (n, D) finite floating array or memory map, n > 0.

    Returns:
        The codes; None where they would not pay, because no small part of the directions holds `KEPT_VARIANCE` of the
        variance, or where rows are so long that the bound could overflow.
    """
    sample = np.asarray(rows[:: -(-len(rows) // _SAMPLE_ROWS)], dtype=np.float64)
    center = sample.mean(axis=0)
    sample = sample - center
    if not np.abs(sample).max(initial=0) <= _MAX_LENGTH:
        return None
    variances, directions = np.linalg.eigh(sample.T @ sample)
    held = np.cumsum(np.maximum(variances[::-1], 0))
    width = -(-int(np.searchsorted(held, KEPT_VARIANCE * held[-1]) + 1) // _STEP) * _STEP
    if width > min(rows.shape[1] // 2, _MAX_WIDTH) or not held[-1] > 0:
        return None
    directions = np.ascontiguousarray(directions[:, ::-1][:, :width])
    found = [
        _encode(rows[start : start + _CHUNK_ROWS], center, directions) for start in range(0, len(rows), _CHUNK_ROWS)
    ]
    integers, scales, squared, rest, spread, longest = zip(*found, strict=True)
    if not max(longest) <= _MAX_LENGTH:
        return None
    return RowCodes(
        center,
        directions,
        np.concatenate(integers),
        np.concatenate(scales),
        np.concatenate(squared),
        np.concatenate(rest),
        max(spread),
        max(longest),
    )


def _encode(rows: Any, center: np.ndarray, directions: np.ndarray) -> tuple[Any, ...]:
    """Return integers, scales, squared lengths and rest of some rows, and the largest rounding error and length."""
    centered = np.asarray(rows, dtype=np.float64) - center
    squared = np.einsum("ij,ij->i", centered, centered)
    inside = centered @ directions
    integers, scales, error = _quantize(inside)
    kept = np.sqrt(np.einsum("ij,ij->i", inside, inside))
    longest = max(float(np.sqrt(squared.max())), float((kept + error).max()))
    rest = _rest(squared, kept, centered.shape[1])
    return integers, scales, squared.astype(np.float32), _up(rest), float((error / scales).max()), longest * (1 + 1e-9)


def _quantize(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the integers (n, m), scales (n,) float32 and lengths of the rounding errors (n,) of rows."""
    scales = _up(np.maximum(np.abs(inside).max(axis=1) / _LARGEST, _MIN_SCALE))
    wide = scales.astype(np.float64)[:, None]
    integers = np.rint(inside / wide)
    error = inside - integers * wide
    return integers.astype(np.int8), scales, np.sqrt(np.einsum("ij,ij->i", error, error)) * (1 + 1e-9)


def _rest(squared: np.ndarray, kept: np.ndarray, width: int) -> np.ndarray:
    """Bound the length outside the directions from above; the difference cancels, so its rounding error is added."""
    return np.sqrt(np.maximum(squared - kept * kept, 0) + (8 * width + 64) * bounds.U64 * squared)


def _up(values: Any) -> np.ndarray:
    """Round to float32, upwards."""
    return np.nextafter(np.asarray(values).astype(np.float32), np.float32(np.inf))


def encode_queries(query: np.ndarray, codes: RowCodes) -> CodedQueries:
    """Write queries in the directions of some codes.

    Args:
        query: (Q, D) finite floating; rows no longer than 2^50.
        codes: Codes of the rows that they are compared with.

    Returns:
        The queries, for `lower_bounds`.
    """
    centered = query.astype(np.float64) - codes.center
    squared = np.einsum("ij,ij->i", centered, centered)
    inside = centered @ codes.directions
    kept = np.sqrt(np.einsum("ij,ij->i", inside, inside))
    integers, scales, error = _quantize(inside)
    rest = _rest(squared, kept, centered.shape[1])
    reach = np.sqrt(squared) + error + codes.longest
    constants = squared - 2 * error * codes.longest - _ROUNDINGS * bounds.U * reach**2 - bounds.UNDERFLOW
    constants = np.nextafter(constants.astype(np.float32), np.float32(-np.inf))
    return CodedQueries(integers, 2 * scales, _up(2 * kept * codes.spread), _up(2 * rest), constants)


def lower_bounds(query: CodedQueries, codes: RowCodes, first: int, out: np.ndarray) -> None:
    """Bound the squared distances between queries and consecutive rows from below.

    Args:
        query: Queries from `encode_queries` for these codes.
        codes: Codes of the rows.
        first: First row; the last one follows from the size of `out`.
        out: (Q, c) float32, overwritten with the bounds: none is larger than `exact.distances.squared_distances`.

    Raises:
        RuntimeError: If `integer_products` finds no function.
    """
    product = integer_products()
    if product is None:
        raise RuntimeError("codes of rows need NumKong")
    part = slice(first, first + out.shape[1])
    product(query.integers, codes.integers[part], "dot", out=out)
    scales, squared, rest = codes.scales[part], codes.squared[part], codes.rest[part]
    outside = np.empty_like(rest)
    for i, row in enumerate(out):
        row *= query.factors[i]
        row += query.margins[i]
        row *= scales
        np.subtract(squared, row, out=row)
        np.multiply(rest, query.rest[i], out=outside)
        row -= outside
        row += query.constants[i]
