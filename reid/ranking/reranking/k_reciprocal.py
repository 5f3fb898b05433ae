"""k-reciprocal encoding (Zhong et al. 2017, sections 3.2 to 3.4): every row as a sparse vector of its neighborhood.

Two rows are k-reciprocal neighbors where each is among the k nearest of the other. All N vectors are rows of one
sparse matrix; the sets of reciprocal neighbors are sparse matrices of zeros and ones, so that set overlaps and unions
are their products. No row has more than (k1 + 1) (k1 / 2 + 1) entries before the local query expansion.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from reid.ranking.exact.neighbors import SelfNeighbors
from reid.ranking.exact.pair_distances import paired_distances

_ROWS = 4096


def encode(values: np.ndarray, neighbors: SelfNeighbors, *, k1: int, k2: int, distance_power: int) -> csr_array:
    """(N, N) sparse float64, rows summing to 1: the weights V of Eq. 8 after the local query expansion of Eq. 11.

    values: (N, D) as `neighbors` were found in. neighbors: at least max(k1 + 1, k2) a row. The k nearest of a row are
    here, as in the published code, itself and k others; k1 / 2 is rounded to the even number where it lies half-way.
    """
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
    """Squared distances over the largest of their row, to the power; 0 where all distances of the row are."""
    return (squared / np.where(largest > 0, largest, 1.0)) ** distance_power


def _reciprocal(nearest: np.ndarray) -> csr_array:
    """(N, k + 1) nearest, the row itself among them -> (N, N) ones where each is among the nearest of the other."""
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
    """(N, N), an entry where j is in R*(i, k1): Eq. 5.

    R(i, k1) takes in R(c, k1 / 2) of each of its members c that shares more than two thirds of that set.
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
    """(N, N) sparse float64: exp(-d / max d) on the members of each row, over the sum of the row."""
    number = len(values)
    rows = np.repeat(np.arange(number), np.diff(members.indptr))
    squared = _pair_distances(values, neighbors, rows, members.indices)
    weights = np.exp(-normalized(squared, neighbors.largest[rows], distance_power))
    weights /= np.add.reduceat(weights, members.indptr[:-1])[rows]
    return csr_array((weights, members.indices, members.indptr), shape=members.shape)


def _pair_distances(values: np.ndarray, neighbors: SelfNeighbors, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n,) float64 distances of pairs in row order, looked up where they are among the neighbors."""
    number = len(values)
    by_index = np.argsort(neighbors.indices, axis=1)
    known = np.arange(number)[:, None] * number + np.take_along_axis(neighbors.indices, by_index, axis=1)
    distances = np.take_along_axis(neighbors.distances, by_index, axis=1).ravel()
    known = known.ravel()
    wanted = rows * number + columns
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = distances[place]
    missing = np.flatnonzero(known[place] != wanted)
    found[missing] = paired_distances(values, values, rows[missing], columns[missing])
    return found
