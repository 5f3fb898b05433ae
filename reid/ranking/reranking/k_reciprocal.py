"""k-reciprocal encoding (Zhong et al. 2017, sections 3.2 to 3.4): every row as a sparse vector of its neighborhood.

Two rows are k-reciprocal neighbors if each is among the k nearest of the other. All N vectors are rows of one sparse
matrix; the sets of reciprocal neighbors are sparse binary matrices, so that set overlaps and unions are their products.
No row has more than (k1 + 1) (k1 / 2 + 1) entries before the local query expansion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reid.ranking.exact.neighbors import SelfNeighbors
from reid.ranking.exact.pair_distances import pair_distances

# SciPy is imported by the functions that need it: it takes a second.
if TYPE_CHECKING:
    from scipy.sparse import csr_array

_ROWS = 4096


def encode(values: np.ndarray, neighbors: SelfNeighbors, *, k1: int, k2: int, distance_power: int) -> csr_array:
    """Compute the weights V of Eq. 8 after the local query expansion of Eq. 11.

    The k nearest of a row are, as in the published code, itself and k others; k1 / 2 is rounded, halves to even.

    Args:
        values: (N, D) rows in which `neighbors` were found.
        neighbors: At least max(k1 + 1, k2) neighbors per row.
        k1: Number of neighbors in the reciprocal sets.
        k2: Number of rows averaged by the local query expansion.
        distance_power: Power of the normalized squared distances.

    Returns:
        (N, N) sparse float64, rows summing to 1.
    """
    from scipy.sparse import csr_array

    reciprocal = _expanded(neighbors.indices, k1)
    weights = _weights(values, neighbors, reciprocal, distance_power)
    # Each row becomes the mean over itself and its k2 - 1 nearest.
    number = len(weights.indptr) - 1
    mean = csr_array(
        (np.full(number * k2, 1 / k2), neighbors.indices[:, :k2].ravel(), np.arange(0, number * k2 + 1, k2)),
        shape=weights.shape,
    )
    return mean @ weights


def normalized(squared: np.ndarray, largest: np.ndarray, distance_power: int) -> np.ndarray:
    """Normalize squared distances by the largest of their row and raise them to a power.

    Args:
        squared: (n,) float64 squared distances.
        largest: The largest squared distance of their rows, a number or (n,).
        distance_power: Exponent applied after the division, at least 1.

    Returns:
        (n,) float64 in 0 .. 1; 0 if all distances of the row are.
    """
    return (squared / np.where(largest > 0, largest, 1.0)) ** distance_power


def _reciprocal(nearest: np.ndarray) -> csr_array:
    """Return an (N, N) binary matrix of mutual neighbors from (N, k + 1) nearest rows, which include the row itself."""
    from scipy.sparse import csr_array

    kept = np.empty(nearest.shape, dtype=bool)
    for start in range(0, len(nearest), _ROWS):
        part = nearest[start : start + _ROWS]
        own = np.arange(start, start + len(part), dtype=nearest.dtype)
        kept[start : start + _ROWS] = (nearest[part] == own[:, None, None]).any(axis=2)
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    found = csr_array((np.ones(ends[-1], dtype=np.int32), nearest[kept], ends), shape=(len(nearest), len(nearest)))
    found.sort_indices()
    return found


def _expanded(indices: np.ndarray, k1: int) -> csr_array:
    """Return (N, N) with an entry where j is in R*(i, k1): Eq. 5.

    R(i, k1) is joined with R(c, k1 / 2) of each member c of which R(i, k1) contains more than two thirds.
    """
    indices = indices.astype(np.int32)
    whole = _reciprocal(indices[:, : k1 + 1])
    half = _reciprocal(indices[:, : round(k1 / 2) + 1])
    # Both are symmetric, so row i of the product counts, for each c, the members of R(c, k1 / 2) in R(i, k1).
    shared = whole.multiply(whole @ half).tocsr()
    size = np.diff(half.indptr)
    shared.data = (3 * shared.data > 2 * size[shared.indices]).astype(np.int32)
    shared.eliminate_zeros()
    found = (whole + shared @ half).tocsr()
    found.sort_indices()
    return found


def _weights(values: np.ndarray, neighbors: SelfNeighbors, members: csr_array, distance_power: int) -> csr_array:
    """Return (N, N) sparse float64 exp(-d / max d) on the members of each row, divided by the sum of the row."""
    number = len(values)
    rows = np.repeat(np.arange(number), np.diff(members.indptr))
    squared = _member_distances(values, neighbors, rows, members.indices)
    weights = np.exp(-normalized(squared, neighbors.largest[rows], distance_power))
    weights /= np.add.reduceat(weights, members.indptr[:-1])[rows]
    from scipy.sparse import csr_array

    return csr_array((weights, members.indices, members.indptr), shape=members.shape)


def _member_distances(
    values: np.ndarray, neighbors: SelfNeighbors, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return (n,) float64 distances of pairs in row order, looked up if they are among the neighbors."""
    number = len(values)
    by_index = np.argsort(neighbors.indices, axis=1)
    known = np.arange(number)[:, None] * number + np.take_along_axis(neighbors.indices, by_index, axis=1)
    distances = np.take_along_axis(neighbors.distances, by_index, axis=1).ravel()
    known = known.ravel()
    keys = rows * number + columns
    position = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found = distances[position]
    missing = np.flatnonzero(known[position] != keys)
    found[missing] = pair_distances(values, values, rows[missing], columns[missing])
    return found
