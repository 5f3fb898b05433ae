"""Re-ranked distances, one query at a time, from original distances and neighborhood vectors.

In float32 with a bound on the error, and in float64 for chosen pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reid.progress import progress_bar
from reid.ranking.exact import bounds
from reid.ranking.exact.first_pass import PreparedRows, approximate, prepare_rows
from reid.ranking.exact.pair_distances import pair_distances
from reid.ranking.reranking.k_reciprocal import normalized

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

_QUERIES, _GALLERY_ROWS = 128, 8192
# For smaller numbers distances are below `bounds.UNDERFLOW`, so that float32 decides nothing.
_MAX_INVERSE = 2.0**120


@dataclass(frozen=True)
class RerankedDistances:
    """What re-ranked distances are computed from.

    Attributes:
        query: (Q, D) query features.
        gallery: (G, D) gallery features.
        vectors: (Q, N) sparse neighborhood vectors of the queries.
        inverted: (G, N) sparse neighborhood vectors of the gallery, by columns.
        largest: (Q,) float64, each query's largest squared distance to the N rows.
        weight: Weight of the original distance, 0 .. 1.
        distance_power: Power of the original distance, and of the weights in the vectors.
    """

    query: np.ndarray
    gallery: np.ndarray
    vectors: csr_array
    inverted: csc_array
    largest: np.ndarray
    weight: float
    distance_power: int

    def combine(self, query: Any, squared: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Combine original and Jaccard distances.

        Args:
            query: Index of one query, or (n,) indices.
            squared: (n,) float64 squared distances.
            shared: (n,) float64 overlaps, see `RerankedRow`.

        Returns:
            (n,) float64 re-ranked distances.
        """
        original = normalized(squared, self.largest[query], self.distance_power)
        return (1 - self.weight) * (1 - shared / (2 - shared)) + self.weight * original

    def exact(self, query: np.ndarray, indices: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Compute the re-ranked distances of some pairs in float64.

        Args:
            query: (n,) int64 query indices.
            indices: (n,) int64 gallery indices.
            shared: (n,) float64 overlaps, see `RerankedRow`.

        Returns:
            (n,) float64 re-ranked distances.
        """
        return self.combine(query, pair_distances(self.query, self.gallery, query, indices), shared)


@dataclass(frozen=True)
class RerankedRow:
    """One query compared with the gallery.

    Attributes:
        distances: (G,) float32, at least 0, within `half_width` of the re-ranked distances.
        half_width: Bound on their error.
        shared: (G,) float64 overlaps, the sum over the entries of min(vector of the query, vector of the image).
    """

    distances: np.ndarray
    half_width: float
    shared: np.ndarray


def reranked_rows(
    reranked: RerankedDistances, workspace: np.ndarray, *, integers: bool
) -> Iterator[tuple[int, RerankedRow]]:
    """Compute the approximate distances of one query after the other.

    Args:
        reranked: What the distances are computed from.
        workspace: (N, D) float32 memory, overwritten.
        integers: Use products of 8-bit integers, with a larger `half_width`, instead of float32.

    Yields:
        The index of the query and its row, in a buffer that the caller may change and later rows overwrite.
    """
    queries = len(reranked.query)
    query, gallery = _prepared(reranked, workspace, integers)
    buffer = np.empty((min(_QUERIES, queries), len(reranked.gallery)), dtype=np.float32)
    buffers: dict[str, Any] = {}
    with progress_bar("re-ranking", queries, unit="queries") as bar:
        for start in range(0, queries, _QUERIES):
            half_widths = _squared_distances(query[start : start + _QUERIES], gallery, buffer, buffers)
            for i, half_width in enumerate(half_widths, start):
                yield i, _reranked_row(reranked, i, buffer[i - start], float(half_width))
            bar.advance(len(half_widths))


def _prepared(
    reranked: RerankedDistances, workspace: np.ndarray, integers: bool
) -> tuple[PreparedRows, list[PreparedRows]]:
    """Prepare the queries and parts of the gallery for the first pass, centered by the mean of all rows."""
    number, total = len(reranked.query), len(reranked.query) + len(reranked.gallery)
    sums = [part.sum(axis=0, dtype=np.float64) for part in (reranked.query, reranked.gallery)]
    center = ((sums[0] + sums[1]) / total).astype(np.float32)

    def keep(rows: PreparedRows, first: int) -> PreparedRows:
        kept = workspace[first : first + len(rows.squared)]
        if rows.limbs is None:
            kept[:] = rows.values
        return dataclasses.replace(rows, values=kept)  # with limbs, only their width is needed

    query = keep(prepare_rows(reranked.query, center, side="query", integers=integers), 0)
    gallery = []
    for start in range(0, len(reranked.gallery), _GALLERY_ROWS):
        some = reranked.gallery[start : start + _GALLERY_ROWS]
        gallery.append(keep(prepare_rows(some, center, side="gallery", integers=integers), number + start))
    return query, gallery


def _squared_distances(
    query: PreparedRows, gallery: list[PreparedRows], out: np.ndarray, buffers: dict[str, Any]
) -> np.ndarray:
    """Fill the first rows of `out` with squared distances; returns (b,) float64 bounds on their error."""
    half_widths = np.zeros(len(query.squared))
    squared = query.squared.astype(np.float32)[:, None]
    first = 0
    for rows in gallery:
        found = approximate(query, rows, buffers)
        np.add(found.values, squared, out=out[: len(squared), first : first + len(rows.squared)])
        reach = (query.lengths + rows.lengths.max()) ** 2
        rounded = 1.01 * bounds.U * (query.squared + reach + found.half_width)
        half_widths = np.maximum(half_widths, found.half_width + rounded)
        first += len(rows.squared)
    return half_widths


def _reranked_row(reranked: RerankedDistances, query: int, row: np.ndarray, half_width: float) -> RerankedRow:
    """Turn squared distances within `half_width` into re-ranked ones, in place."""
    largest = float(reranked.largest[query]) or 1.0
    weight, power = reranked.weight, reranked.distance_power
    # d over the largest is in 0 .. 1, and so is its approximation; float32 has no inverse of the smallest numbers.
    row *= np.float32(min(1.0 / largest, _MAX_INVERSE))
    np.clip(row, 0.0, 1.0, out=row)
    if power == 2:
        row *= row
    row *= np.float32(weight)
    row += np.float32(1 - weight)
    shared = _shared(reranked.vectors, reranked.inverted, query)
    near = np.flatnonzero(shared)
    both = shared[near]
    row[near] = np.maximum(row[near] - (1 - weight) * both / (2 - both), 0.0)
    # The last term covers the roundings of the steps after it.
    error = min(1.01 * half_width / largest, 1.0) + 4 * bounds.U
    return RerankedRow(row, weight * power * error * (1 + error) + 8 * bounds.U, shared)


def _shared(vectors: csr_array, inverted: csc_array, row: int) -> np.ndarray:
    """Compute `RerankedRow.shared` by inverted lists.

    Vectors sum to 1, so the sum of the larger entries is 2 minus it.
    """
    own = slice(vectors.indptr[row], vectors.indptr[row + 1])
    entries, weights = vectors.indices[own], vectors.data[own]
    first = inverted.indptr[entries]
    number = inverted.indptr[entries + 1] - first
    ends = np.cumsum(number)
    position = np.arange(ends[-1]) + np.repeat(first - ends + number, number)
    smaller = np.minimum(inverted.data[position], np.repeat(weights, number))
    return np.bincount(inverted.indices[position], smaller, minlength=inverted.shape[0])
