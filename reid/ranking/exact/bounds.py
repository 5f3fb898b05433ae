"""Bounds on the rounding errors of float32 results; docs/ranking.md has the derivations.

U is the unit roundoff of float32. A sum of n products in any order, fused or not, has an error of at most `gamma(n)`
times the sum of the absolute products (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

U = 2.0**-24
U64 = 2.0**-53
# Numbers below 2^-126 may be rounded to few bits or to zero: covers 2^24 of these.
UNDERFLOW = 2.0**-102
# The same below 2^-1022 in float64: covers 2^74 of these.
_UNDERFLOW64 = 2.0**-1000


def gamma(n: int) -> float:
    """Return n u / (1 - n u), the relative error bound of n float32 operations.

    Args:
        n: Number of operations that a term passes through.

    Returns:
        The bound; infinity where it does not hold.
    """
    return n * U / (1 - n * U) if n * U < 0.5 else float("inf")


def centered_distance(query_length: Any, gallery_length: Any, width: int) -> Any:
    """Bound the change of a squared distance when both rows are centered and rounded to float32.

    The error of the float64 sums of the norms is covered too.

    Args:
        query_length: Length of the centered query row, float64.
        gallery_length: Length of the centered gallery row, float64.
        width: Number of dimensions D.

    Returns:
        The bound, float64, of the broadcast shape of the lengths.
    """
    reach = query_length + gallery_length
    return (2.01 * U + (4 * width + 64) * U64) * reach * reach


def float32_product(query_length: Any, gallery_length: Any, terms: int) -> Any:
    """Bound the error of -2 q.g computed in float32.

    Args:
        query_length: Length of the query row, float64.
        gallery_length: Length of the gallery row, float64.
        terms: Largest number of operations that a term passes through.

    Returns:
        The bound, float64, of the broadcast shape of the lengths.
    """
    return gamma(terms) * 2 * query_length * gallery_length + UNDERFLOW


def addition_error(query_length: Any, gallery_length: Any) -> Any:
    """Bound the error of rounding |g|^2 to float32 and adding it to -2 q.g in float32.

    Args:
        query_length: Length of the query row, float64.
        gallery_length: Length of the gallery row, float64.

    Returns:
        The bound, float64, of the broadcast shape of the lengths.
    """
    return 1.01 * U * (2 * query_length * gallery_length + 2 * gallery_length * gallery_length) + UNDERFLOW


def float64_distance(reach: Any, width: int) -> Any:
    """Bound the error of |q|^2 + |g|^2 - 2 q.g in float64 of two rows that were centered in float64.

    Args:
        reach: |q| + |g| of the centered rows, float64.
        width: Number of dimensions D.

    Returns:
        The bound on the difference from `squared_distances` of the rows that were given, of the shape of `reach`.
    """
    return 2.1 * (width + 8) * U64 * reach**2 + _UNDERFLOW64


def grid(rows: np.ndarray) -> np.ndarray:
    """Find the coarsest grid that each row lies on.

    Args:
        rows: (n, D) float64, D > 0.

    Returns:
        (n,) float64, the largest power of two of which all numbers of the row are multiples; infinity for zeros.
    """
    found = np.empty(len(rows))
    step = max(1, (1 << 16) // rows.shape[1])
    for start in range(0, len(rows), step):
        mantissa, exponent = np.frexp(rows[start : start + step])
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        unit = np.ldexp((whole & -whole).astype(np.float64), exponent - 53)
        found[start : start + step] = np.where(unit > 0, unit, np.inf).min(axis=1)
    return found


def is_exact(reach: Any, grid: float, bits: int = 53) -> Any:
    """Return whether computed distances have no rounding error, so that they equal `squared_distances`.

    With all numbers multiples of `grid`, and the squared distance below 2^(bits - 1) grid^2, every intermediate result
    is a multiple of grid^2 below 2^bits grid^2. Grids whose square is near the smallest number do not count.

    Args:
        reach: |q| + |g| of the centered rows, float64.
        grid: A power of two of which all numbers of the rows and of the center are multiples.
        bits: Precision in which they are computed: 53 for float64, 24 for float32.

    Returns:
        Bool, of the shape of `reach`.
    """
    smallest = 2.0**-500 if bits == 53 else 2.0**-60
    return (reach * (1 + 2.0**-20) <= 2.0 ** ((bits - 1) // 2) * grid) & (grid >= smallest)
