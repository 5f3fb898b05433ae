"""Bounds on the rounding errors of float32 results; docs/ranking.md has the derivations.

U is the unit roundoff of float32. A sum of n products in any order, fused or not, has an error of at most `gamma(n)`
times the sum of the absolute products (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

U = 2.0**-24
U64 = 2.0**-53
# Numbers below 2^-126 may be rounded to few bits or to zero: covers 2^24 of these.
UNDERFLOW = 2.0**-102


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
