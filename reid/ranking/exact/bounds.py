"""How far a float32 result may lie from the number meant: see docs/ranking.md for the derivations.

U is the unit roundoff of float32. A sum of n products in any order, fused or not, is off by at most `gamma(n)` times
the sum of the absolute products (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

U = 2.0**-24
U64 = 2.0**-53
# Numbers below 2^-126 may be rounded to few bits or to zero: covers 2^24 of these.
UNDERFLOW = 2.0**-102


def gamma(n: int) -> float:
    """n u / (1 - n u), for n float32 operations on the way of a term. Infinite where that bound does not hold."""
    return n * U / (1 - n * U) if n * U < 0.5 else float("inf")


def centered_distance(query_length: Any, gallery_length: Any, width: int) -> Any:
    """What squared distances of rows may change when both have a vector subtracted and are rounded to float32.

    query_length, gallery_length: lengths of the centered rows, float64. The float64 sums of norms are covered too.
    """
    reach = query_length + gallery_length
    return (2.01 * U + (4 * width + 64) * U64) * reach * reach


def float32_product(query_length: Any, gallery_length: Any, terms: int) -> Any:
    """What -2 q.g may be off when computed in float32, no term passing more than `terms` operations."""
    return gamma(terms) * 2 * query_length * gallery_length + UNDERFLOW


def added(query_length: Any, gallery_length: Any) -> Any:
    """What |g|^2 rounded to float32 and added in float32 to a -2 q.g may be off."""
    return 1.01 * U * (2 * query_length * gallery_length + 2 * gallery_length * gallery_length) + UNDERFLOW
