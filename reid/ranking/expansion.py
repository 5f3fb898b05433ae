"""Query expansion and database-side augmentation: features replaced by means over their nearest neighbors.

All functions divide rows by their length, find neighbors by cosine and return rows of length 1, suitable for any
metric. The weight of a neighbor is max(cos, 0)^alpha, that of the row itself 1; alpha 0 is the plain mean. Tensors and
shards are read into host memory, and arrays are returned.

- AQE: Chum et al., Total Recall, ICCV 2007, without the spatial verification;
- alpha-QE: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018;
- database side: Turcot and Lowe 2009; Arandjelovic and Zisserman, Three Things Everyone Should Know, CVPR 2012.
"""

from __future__ import annotations

import numpy as np

from reid.errors import InputError
from reid.ranking.arrays import all_rows
from reid.ranking.distance import normalize_rows
from reid.ranking.exact.neighbors import nearest_and_largest
from reid.ranking.exact.tiles import check_matrices
from reid.ranking.search import top_k

# Elements of the means computed at once.
_MAX_ELEMENTS = 1 << 21


def average_queries(query: np.ndarray, gallery: np.ndarray, *, neighbors: int = 5) -> np.ndarray:
    """Replace each query by the mean of itself and its nearest gallery rows (AQE).

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating.
        neighbors: Gallery rows per query, 1 .. G.

    Returns:
        (Q, D) float32 rows of length 1, as `expand_queries` with alpha 0.

    Raises:
        InputError: If `expand_queries` raises it.
    """
    return expand_queries(query, gallery, neighbors=neighbors, alpha=0.0)


def expand_queries(query: np.ndarray, gallery: np.ndarray, *, neighbors: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Replace each query by its mean with its nearest gallery rows, weighted by cos^alpha (alpha-QE).

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating.
        neighbors: Gallery rows per query, 1 .. G.
        alpha: Exponent of the cosine, at least 0.

    Returns:
        (Q, D) float32 rows of length 1.

    Raises:
        InputError: If arguments are out of range, the widths differ or rows are zero.
    """
    check_alpha(alpha)
    if not 1 <= neighbors <= len(gallery):
        raise InputError(
            f"expansion by {neighbors} neighbors: must be in [1, {len(gallery)}], at most the number of gallery rows"
        )
    check_matrices(query, gallery, "cosine")
    own, unit = normalize_rows(all_rows(query)), normalize_rows(all_rows(gallery))
    found = top_k(own, unit, neighbors)
    return _means(own, unit, found.indices, found.distances, alpha)


def augment_gallery(gallery: np.ndarray, *, neighbors: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Replace each gallery row by its mean with its nearest other rows, weighted by cos^alpha.

    Args:
        gallery: (G, D) floating. All means are of these rows, not of replaced ones.
        neighbors: Other rows per row, 1 .. G - 1.
        alpha: Exponent of the cosine, at least 0.

    Returns:
        (G, D) float32 rows of length 1.

    Raises:
        InputError: If arguments are out of range or rows are zero.
    """
    check_alpha(alpha)
    if not 1 <= neighbors < len(gallery):
        raise InputError(
            f"augmentation by {neighbors} neighbors: must be in [1, {len(gallery) - 1}], at most the other gallery rows"
        )
    unit = normalize_rows(all_rows(gallery))
    found = nearest_and_largest(unit, neighbors + 1)
    return _means(unit, unit, found.indices[:, 1:], found.distances[:, 1:], alpha)


def _means(own: np.ndarray, others: np.ndarray, indices: np.ndarray, squared: np.ndarray, alpha: float) -> np.ndarray:
    """Normalize own + sum of weight * others[indices] for (n, k) neighbors at squared distances 2 - 2 cos."""
    weights = np.maximum(1.0 - squared / 2, 0.0) ** alpha
    means = np.empty_like(own)
    step = max(1, _MAX_ELEMENTS // own.shape[1])
    for start in range(0, len(own), step):
        rows = slice(start, start + step)
        total = own[rows].astype(np.float64)
        # One neighbor after the other: a fixed order of summation.
        for neighbor, weight in zip(indices[rows].T, weights[rows].T, strict=True):
            total += weight[:, None] * others[neighbor]
        # A mean of zero, from opposite rows, has no direction: the row stays unchanged.
        lost = ~total.any(axis=1)
        total[lost] = own[rows][lost]
        means[rows] = normalize_rows(total)
    return means


def check_alpha(alpha: float) -> None:
    """Check the exponent of an expansion.

    Args:
        alpha: The exponent of the cosine.

    Raises:
        InputError: If it is negative, infinite or NaN.
    """
    if not 0.0 <= alpha < float("inf"):
        raise InputError(f"alpha {alpha}: the exponent of the cosine must be at least 0")
