"""Query expansion and database-side augmentation: features replaced by means over their nearest neighbors.

All on rows divided by their length, neighbors by cosine; what comes back has length 1 again, ready for any metric. The
weight of a neighbor is max(cos, 0)^alpha, that of the row itself 1; alpha 0 is the plain mean. Tensors and shards
are brought into the host's memory, and arrays come back.

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

# Numbers of the means computed at once.
_NUMBERS = 1 << 21


def average_queries(query: np.ndarray, gallery: np.ndarray, *, neighbors: int = 5) -> np.ndarray:
    """AQE: each query becomes the mean of itself and its nearest gallery rows. As `expand_queries` with alpha 0."""
    return expand_queries(query, gallery, neighbors=neighbors, alpha=0.0)


def expand_queries(query: np.ndarray, gallery: np.ndarray, *, neighbors: int = 10, alpha: float = 3.0) -> np.ndarray:
    """alpha-QE: each query becomes its mean with its nearest gallery rows, weighted by cos^alpha.

    query: (Q, D), gallery: (G, D), floating -> (Q, D) float32, rows of length 1. neighbors: 1 .. G. alpha: from 0.
    Raises InputError for arguments out of range, differing widths and rows of zeros.
    """
    _check_alpha(alpha)
    if not 1 <= neighbors <= len(gallery):
        raise InputError(
            f"expansion by {neighbors} neighbors from a gallery of {len(gallery)} rows: give 1 .. {len(gallery)}"
        )
    check_matrices(query, gallery, "cosine")
    own, unit = normalize_rows(all_rows(query)), normalize_rows(all_rows(gallery))
    found = top_k(own, unit, neighbors)
    return _means(own, unit, found.indices, found.distances, alpha)


def augment_gallery(gallery: np.ndarray, *, neighbors: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Each gallery row becomes its mean with its nearest other rows, weighted by cos^alpha.

    gallery: (G, D) floating -> (G, D) float32, rows of length 1. neighbors: 1 .. G - 1, the row itself apart. All
    means are of the rows given, none of rows already replaced.
    Raises InputError for arguments out of range and rows of zeros.
    """
    _check_alpha(alpha)
    if not 1 <= neighbors < len(gallery):
        raise InputError(
            f"augmentation by {neighbors} neighbors in a gallery of {len(gallery)} rows: give 1 .. {len(gallery) - 1}"
        )
    unit = normalize_rows(all_rows(gallery))
    found = nearest_and_largest(unit, neighbors + 1)
    return _means(unit, unit, found.indices[:, 1:], found.distances[:, 1:], alpha)


def _means(own: np.ndarray, others: np.ndarray, indices: np.ndarray, squared: np.ndarray, alpha: float) -> np.ndarray:
    """own + sum of weight * others[indices], over its length; (n, D) float32.

    indices: (n, k); squared: (n, k) squared distances 2 - 2 cos of rows of length 1.
    """
    weights = np.maximum(1.0 - squared / 2, 0.0) ** alpha
    means = np.empty_like(own)
    step = max(1, _NUMBERS // own.shape[1])
    for start in range(0, len(own), step):
        rows = slice(start, start + step)
        total = own[rows].astype(np.float64)
        # One neighbor after the other: a fixed order of summation.
        for neighbor, weight in zip(indices[rows].T, weights[rows].T, strict=True):
            total += weight[:, None] * others[neighbor]
        # A mean of zero, from rows that point away from each other, has no direction: the row stays.
        lost = ~total.any(axis=1)
        total[lost] = own[rows][lost]
        means[rows] = normalize_rows(total)
    return means


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha < float("inf"):
        raise InputError(f"the exponent alpha of the cosine must be 0 or more, not {alpha}")
