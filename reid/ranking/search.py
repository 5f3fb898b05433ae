"""Exact search for the k nearest gallery rows of every query, in galleries of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import arrays
from reid.ranking.exact.close import CloseDistances, close_distances, distinct_rows, group_queries
from reid.ranking.exact.first_pass import approximate, prepare_rows
from reid.ranking.exact.gallery_rows import RowSource, mean_row, tile_ranges, unique_pair_distances
from reid.ranking.exact.options import ComparisonOptions, check_comparable
from reid.ranking.exact.shortlist import Shortlist

# Shortlist entries beyond the k nearest, for rows that the bound leaves undecided.
_SPARE = 64


@dataclass(frozen=True)
class Neighbors:
    """The nearest gallery rows of every query.

    Attributes:
        indices: (Q, k) int64 gallery indices by distance and, if equal, by index.
        distances: (Q, k) float64 squared Euclidean distances; with "cosine" those of the rows divided by their length,
            2 - 2 cos. `euclidean` gives the distances themselves, as `svdnet search` and calibrations state them.
    """

    indices: np.ndarray
    distances: np.ndarray

    @property
    def euclidean(self) -> np.ndarray:
        """(Q, k) float64 Euclidean distances, the square roots of `distances`; in [0, 2] for rows of length 1."""
        return np.sqrt(self.distances)


def top_k(
    query: Any, gallery: Any, k: int, *, metric: str = "euclidean", block: int = 1024, first_pass: str = "auto"
) -> Neighbors:
    """Find the k nearest gallery rows of every query by exact distance.

    Args:
        query: (Q, D) floating array or tensor.
        gallery: (G, D) floating array, memory map, `reid.io.shards.Shards` or a tensor on the device of `query`.
        k: Neighbors per query, 1 .. G.
        metric: "euclidean", or "cosine" for the Euclidean distance between rows divided by their length.
        block: Queries compared at once. It does not change the result.
        first_pass: "auto", "float32" or "integers", as in `reid.ranking.evaluate`. It does not change the result.

    Returns:
        The neighbors, by the distances of `reid.ranking.exact.distances`.

    Raises:
        InputError: If k is outside 1 .. G, or `reid.ranking.evaluate` would reject the features.
    """
    options = ComparisonOptions(metric, block, first_pass)
    query, gallery = arrays.as_matrix(query, "query"), arrays.as_matrix(gallery, "gallery")
    check_comparable(query, gallery, options)
    if not 1 <= k <= len(gallery):
        raise InputError(f"k {k}: must be in [1, {len(gallery)}], at most the number of gallery rows")
    rows, source = RowSource(query, metric, "query").load(), RowSource(gallery, metric)
    if not len(rows):
        return Neighbors(np.empty((0, k), dtype=np.int64), np.empty((0, k)))
    integers = options.uses_integers(query)
    center = mean_row(rows)
    prepared = prepare_rows(rows[:], center, side="query", integers=integers)
    shortlist = Shortlist.empty(len(rows), k, min(len(gallery), k + _SPARE))
    buffers: dict[str, Any] = {}
    for first, stop in tile_ranges(source, title="search"):
        numbers = np.arange(first, stop)
        tile = prepare_rows(source[first:stop], center, side="gallery", integers=integers, numbers=numbers)
        for begin in range(0, len(rows), block):
            part = slice(begin, min(begin + block, len(rows)))
            found = approximate(prepared[part], tile, buffers)
            half = float(found.half_width.max())
            fresh = np.isinf(shortlist.cutoff[part]).all()
            if fresh and stop - first >= k:
                # An upper bound of the k-th distance, so that most of the tile need not be added.
                shortlist.cutoff[part] = arrays.kth_smallest(found.values, k) + half
            limit = np.nextafter((shortlist.cutoff[part] + half).astype(np.float32), np.float32(np.inf))
            flat = arrays.flatnonzero(found.values <= arrays.like(limit, found.values)[:, None])
            values = arrays.to_numpy(found.values.reshape(-1)[flat]).astype(np.float64)
            row, column = np.divmod(arrays.to_numpy(flat), stop - first)
            shortlist.add(begin + row, first + column, values - half, half)
    shortlist.finalize()
    return _select(rows, source, shortlist, k)


def _select(rows: RowSource, source: RowSource, shortlist: Shortlist, k: int) -> Neighbors:
    """Select the k nearest of the shortlists by exact distance."""
    indices, distances = np.empty((len(rows), k), dtype=np.int64), np.empty((len(rows), k))
    row, index = shortlist.pairs()
    exact = unique_pair_distances(rows, source, row, index)
    order = np.lexsort((index, exact, row))
    complete = ~shortlist.overflowed
    first = np.searchsorted(row, np.flatnonzero(complete))
    chosen = order[first[:, None] + np.arange(k)]
    indices[complete], distances[complete] = index[chosen], exact[chosen]
    if shortlist.overflowed.any():
        overflowed = np.flatnonzero(shortlist.overflowed)
        indices[overflowed], distances[overflowed] = _search_directly(rows, source, overflowed, k)
    return Neighbors(indices, distances)


def _search_directly(
    rows: RowSource, source: RowSource, overflowed: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compare queries with the whole gallery in float64, for those with too many near rows for a shortlist."""
    some = RowSource(arrays.rows_of(rows.values, overflowed), "euclidean", rows.side)
    groups = group_queries(some)
    # Before any row is found, places hold an index beyond all rows at an infinite distance.
    indices, distances = np.full((len(some), k), len(source)), np.full((len(some), k), np.inf)
    for start, stop in tile_ranges(source, title="search"):
        tile = source[start:stop]
        distinct = distinct_rows(tile)
        for group in groups:
            for found in close_distances(some, group, distinct):
                _add_nearest(found, some, tile, start, indices, distances)
    return indices, distances


def _add_nearest(
    found: CloseDistances, query: RowSource, tile: Any, start: int, indices: np.ndarray, distances: np.ndarray
) -> None:
    """Add what may be among the nearest so far to `indices` and `distances` (Q, k), by exact distance."""
    k = indices.shape[1]
    own, half = found.queries, found.half_width[:, None]
    spread = np.take(found.values, found.inverse, axis=1)
    limit = distances[own, -1:]
    if len(found.columns) >= k:
        limit = np.minimum(limit, np.partition(spread, k - 1, axis=1)[:, k - 1 : k] + half)
    near, distinct = np.nonzero((found.values <= limit + half) & (half > 0))
    if len(near):
        pairs = own[near], found.distinct[distinct]
        found.values[near, distinct] = unique_pair_distances(query, tile, *pairs)
        spread = np.take(found.values, found.inverse, axis=1)
    for i, number in enumerate(own.tolist()):
        # Of equal distances the first come first, so that k of this tile suffice.
        columns = np.flatnonzero(spread[i] <= limit[i])
        columns = columns[np.argsort(spread[i, columns], kind="stable")[:k]]
        index = np.concatenate([indices[number], start + found.columns[columns]])
        distance = np.concatenate([distances[number], spread[i, columns]])
        nearest = np.lexsort((index, distance))[:k]
        indices[number], distances[number] = index[nearest], distance[nearest]
