"""Counts for queries whose thresholds are too close to too many rows for the first pass: see `close`."""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.ranking.exact.close import CloseDistances, QueryGroup, close_distances, distinct_rows, group_queries
from reid.ranking.exact.gallery_rows import GalleryTile, RowSource, unique_pair_distances
from reid.ranking.exact.targets import Targets


class CrowdedQueries:
    """Running counts of the rows nearer than the targets of some queries, without undecided comparisons.

    Args:
        query: Source of all queries, in memory.
        targets: The distances to compare with.
        offsets: (Q + 1,) int64; query i owns the targets offsets[i] .. offsets[i + 1] - 1.

    Attributes:
        member: (Q,) bool, the queries that are counted here; may be extended between tiles.
        counts: (M,) int64 nearer rows in the tiles so far.
        recomputed: Number of exact distances that this took.
    """

    def __init__(self, query: RowSource, targets: Targets, offsets: np.ndarray) -> None:
        self.member = np.zeros(len(query), dtype=bool)
        self.counts = np.zeros(len(targets.indices), dtype=np.int64)
        self.recomputed = 0
        self._query, self._targets, self._offsets = query, targets, offsets
        self._groups: list[QueryGroup] | None = None

    def add(self, tile: GalleryTile, excluded: Any) -> None:
        """Count the rows of a tile.

        Args:
            tile: Rows of the gallery.
            excluded: Pairs that do not count, `reid.ranking.exact.ranks.ExcludedPairs`.
        """
        if not self.member.any():
            return
        if self._groups is None:
            self._groups = group_queries(self._query)
        self._targets.compute_exact(np.flatnonzero(self.member[self._targets.owner]))
        rows = distinct_rows(tile.rows)
        for group in self._groups:
            some = QueryGroup(group.numbers[self.member[group.numbers]], group.center)
            for found in close_distances(self._query, some, rows):
                self._add(found, tile, excluded)

    def _add(self, found: CloseDistances, tile: GalleryTile, excluded: Any) -> None:
        own = [slice(int(self._offsets[query]), int(self._offsets[query + 1])) for query in found.queries]
        exact = [self._targets.exact[part] for part in own]
        hidden = _excluded(found, tile, excluded)
        # Where most rows equal others, the distinct ones are decided before their distances are spread.
        spread = found.values if 4 * len(found.distinct) <= len(found.columns) else _spread(found, hidden)
        ordered = np.sort(spread, axis=1)
        rows, distinct = _undecided(found, ordered, exact)
        if len(rows):
            pairs = found.queries[rows], found.distinct[distinct]
            found.values[rows, distinct] = unique_pair_distances(self._query, tile.rows, *pairs)
            self.recomputed += len(rows)
        if len(rows) or spread is found.values:
            spread = _spread(found, hidden)
            ordered = np.sort(spread, axis=1)
        indices = tile.indices[found.columns]
        for i, part in enumerate(own):
            before = np.searchsorted(indices, self._targets.indices[part])
            self.counts[part] += _count_before(spread[i], ordered[i], exact[i], before)


def _spread(found: CloseDistances, hidden: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Repeat (b, u) distances for all (b, t) pairs; those that do not count become infinite."""
    spread = np.take(found.values, found.inverse, axis=1)
    spread[hidden] = np.inf
    return spread


def _excluded(found: CloseDistances, tile: GalleryTile, excluded: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the excluded pairs as rows and columns of the distances."""
    first, width = int(found.queries[0]), tile.stop - tile.start
    row = np.full(int(found.queries[-1]) - first + 1, -1)
    row[found.queries - first] = np.arange(len(found.queries))
    column = np.full(width, -1)
    column[tile.indices[found.columns] - tile.start] = np.arange(len(found.columns))
    queries, columns = excluded(first, len(row), tile.start, width)
    rows, columns = row[queries], column[columns]
    here = (rows >= 0) & (columns >= 0)
    return rows[here], columns[here]


def _undecided(found: CloseDistances, ordered: np.ndarray, exact: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """List pairs whose distance is within its bound of a target's: rows of the distances, and distinct rows."""
    rows, distinct = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for i in np.flatnonzero(found.half_width).tolist():
        half, thresholds = found.half_width[i], np.sort(exact[i])
        start = ordered[i].searchsorted(thresholds - half, side="left")
        if (start == ordered[i].searchsorted(thresholds + half, side="right")).all():
            continue
        next_above = np.searchsorted(thresholds, found.values[i] - half)
        near = np.append(thresholds, np.inf)[next_above] <= found.values[i] + half
        distinct.append(np.flatnonzero(near))
        rows.append(np.full(len(distinct[-1]), i))
    return np.concatenate(rows), np.concatenate(distinct)


def _count_before(row: np.ndarray, ordered: np.ndarray, exact: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Count the distances of a query below each threshold, or equal to it and among its first `before`."""
    below, up_to = (ordered.searchsorted(exact, side=side) for side in ("left", "right"))
    count = np.where(before == len(row), up_to, below)
    inside = (up_to > below) & (before > 0) & (before < len(row))
    if inside.any():
        for i in np.flatnonzero(inside).tolist():
            count[i] += np.count_nonzero(row[: before[i]] == exact[i])
    return count
