"""How many gallery rows are nearer to a query than its targets, exactly: all that a rank needs.

Exact means by `squared_distances` of the given rows, equal ones by gallery index. The gallery is read one tile at a
time, so it may be on disk; only the queries and one tile are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact.counting import QUERY_BITS, Thresholds, TileCounts, count_in_tile
from reid.ranking.exact.crowded import CrowdedQueries
from reid.ranking.exact.first_pass import PreparedRows, approximate, prepare_rows
from reid.ranking.exact.gallery_rows import GalleryTile, RowSource, mean_row, tile_ranges
from reid.ranking.exact.options import ComparisonOptions, check_comparable
from reid.ranking.exact.refine import is_nearer
from reid.ranking.exact.targets import Targets
from reid.ranking.metrics import Work

# Integer products leave more comparisons undecided than float32 products. Above this share of all pairs, float32 is
# faster.
_MAX_RECOMPUTED = 0.01
_MIN_PAIRS_TO_JUDGE = 100_000
# A query with more undecided comparisons in a tile, or with more than this share of its rows, is crowded, and compared
# with all rows in float64: unless crowded queries have fewer together than it costs to prepare the tile for that.
_CROWDED, _CROWDED_SHARE = 32, 1 / 16
_MIN_CROWDED_PER_ROW = 8

# Pairs of a block of queries and a tile that do not count: (first query, queries, first gallery row, rows) -> (indices
# in the block, indices in the tile), int64.
ExcludedPairs = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]

_DEFAULT_OPTIONS = ComparisonOptions()


@dataclass(frozen=True)
class NearerCounts:
    """How many gallery rows are nearer than each target.

    Attributes:
        counts: (M,) int64 numbers of nearer rows, excluded ones not counted.
        order: (M,) int64 position of the target among those of its query, from 0, by exact distance and index.
        work: How many comparisons this took.
    """

    counts: np.ndarray
    order: np.ndarray
    work: Work


def count_nearer(
    query: Any,
    gallery: Any,
    offsets: np.ndarray,
    targets: np.ndarray,
    *,
    excluded: ExcludedPairs,
    keep: np.ndarray | None = None,
    options: ComparisonOptions = _DEFAULT_OPTIONS,
) -> NearerCounts:
    """Count the gallery rows that are nearer to each query than each of its targets.

    Args:
        query: (Q, D) floating array or tensor.
        gallery: (G, D) floating array, memory map, `reid.io.shards.Shards` or a tensor on the device of `query`.
        offsets: (Q + 1,) int64; query i owns targets[offsets[i]:offsets[i + 1]].
        targets: (M,) int64 gallery indices.
        excluded: Pairs that do not count.
        keep: (G,) bool, gallery rows that count; None for all.
        options: Metric, block size and first pass.

    Returns:
        The counts, and the order of the targets of each query.

    Raises:
        InputError: If `check_comparable` raises it, rows have NaN or infinity or are too long for float32, or, with
            "cosine", rows are zero.
    """
    check_comparable(query, gallery, options)
    rows, source = RowSource(query, options.metric, "query").load(), RowSource(gallery, options.metric)
    integers = options.uses_integers(query)
    center = mean_row(rows)
    prepared = prepare_rows(rows[:], center, side="query", integers=integers)
    known = Targets(rows, prepared, source, center, offsets, targets)
    order = known.order()
    counter = _Counter(rows, prepared, known, offsets, min(options.block, 1 << QUERY_BITS))
    for start, stop in tile_ranges(source, short_first=True):
        indices = np.arange(start, stop) if keep is None else start + np.flatnonzero(keep[start:stop])
        if not len(indices):
            continue
        some = source[start:stop]
        some = some if len(indices) == stop - start else arrays.rows_of(some, indices - start)
        gallery_rows = prepare_rows(some, center, side="gallery", integers=integers, numbers=indices)
        tile = GalleryTile(start, stop, indices, some, gallery_rows)
        counter.add(tile, excluded)
        # Free the memory of this tile before the next one is prepared.
        del tile, some, gallery_rows
        integers = integers and not counter.too_many_recomputed
    return NearerCounts(counter.counts, order, counter.work)


class _Counter:
    """Running counts over the tiles of a gallery."""

    def __init__(
        self, query: RowSource, prepared: PreparedRows, targets: Targets, offsets: np.ndarray, block: int
    ) -> None:
        self._query, self._prepared, self._targets = query, prepared, targets
        self._offsets, self._block = offsets, block
        # Sorted by distance, the thresholds of a query are looked up next to each other.
        self._ascending = ascending = np.lexsort((targets.lower, targets.owner))
        self._owner, self._lower, self._upper = (
            values[ascending] for values in (targets.owner, targets.lower, targets.upper)
        )
        self._counts = np.zeros(len(targets.indices), dtype=np.int64)
        self._pairs = self._recomputed = 0
        self._passes: list[str] = []
        self._buffers: dict[str, Any] = {}
        self._crowded = CrowdedQueries(query, targets, offsets)

    def add(self, tile: GalleryTile, excluded: ExcludedPairs) -> None:
        """Count the rows of a tile."""
        for begin in range(0, len(self._query), self._block):
            end = min(begin + self._block, len(self._query))
            own = slice(int(self._offsets[begin]), int(self._offsets[end]))
            if own.start == own.stop:
                continue
            self._pairs += (end - begin) * len(tile.indices)
            # Queries that were crowded in an earlier tile are so in this one, too.
            if not self._crowded.member[self._owner[own]].all():
                pairs = excluded(begin, end - begin, tile.start, tile.stop - tile.start)
                self._add_block(tile, begin, end, own, pairs)
        if self._crowded.member.any():
            self._passes += ["float64"] if "float64" not in self._passes else []
            self._crowded.add(tile, excluded)

    def _add_block(
        self, tile: GalleryTile, begin: int, end: int, own: slice, excluded: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Count the rows of a tile for the queries begin .. end - 1, whose targets are `own`, except crowded ones."""
        queries, index = self._prepared[begin:end], self._owner[own] - begin
        norms = queries.squared[index]
        thresholds = Thresholds(index, self._lower[own] - norms, self._upper[own] - norms)
        crowded = self._crowded.member[begin:end]
        for rows in (queries, queries.without_limbs()):
            approximation = approximate(rows, tile.prepared, self._buffers)
            used = "integers" if approximation.integers else "float32"
            self._passes += [used] if used not in self._passes else []
            _exclude(approximation.values, excluded, tile)
            result = count_in_tile(approximation, thresholds).only(~crowded[index])
            more = _crowded(result, index, queries=end - begin, rows=len(tile.indices))
            if not (approximation.integers and more.any()):
                break
        crowded |= more
        result = result.only(~crowded[index])
        self._counts[own] += result.nearer
        for threshold, column in result.undecided():
            which = self._ascending[own][threshold]
            nearer = is_nearer(self._targets, which, self._query, self._prepared, tile, column)
            self._counts[own] += np.bincount(threshold[nearer], minlength=own.stop - own.start)
            self._recomputed += len(nearer)

    @property
    def too_many_recomputed(self) -> bool:
        """Whether float32 products would be faster."""
        return self._pairs >= _MIN_PAIRS_TO_JUDGE and self._recomputed > _MAX_RECOMPUTED * self._pairs

    @property
    def counts(self) -> np.ndarray:
        """(M,) int64 counts in the order of the targets."""
        counts = np.empty_like(self._counts)
        counts[self._ascending] = self._counts
        return counts + self._crowded.counts

    @property
    def work(self) -> Work:
        """Comparisons made so far."""
        return Work(self._pairs, self._recomputed + self._crowded.recomputed, ", then ".join(self._passes))


def _crowded(result: TileCounts, index: np.ndarray, *, queries: int, rows: int) -> np.ndarray:
    """Return (b,) bool, the queries of a block with too many undecided comparisons for `is_nearer`."""
    undecided = np.bincount(index, result.end - result.start, minlength=queries)
    many = undecided > max(_CROWDED, _CROWDED_SHARE * rows)
    if undecided[many].sum() <= _MIN_CROWDED_PER_ROW * rows:
        return np.zeros(queries, dtype=bool)
    # For few of a block the first pass takes as long as for all.
    return many | (2 * np.count_nonzero(many) > queries)


def _exclude(values: Any, pairs: tuple[np.ndarray, np.ndarray], tile: GalleryTile) -> None:
    """Set the values of excluded pairs to infinity."""
    queries, columns = pairs
    width = tile.stop - tile.start
    if len(tile.indices) < width:
        column = np.full(width, -1, dtype=np.int64)
        column[tile.indices - tile.start] = np.arange(len(tile.indices))
        columns = column[columns]
        queries, columns = queries[columns >= 0], columns[columns >= 0]
    values[arrays.like(queries, values), arrays.like(columns, values)] = float("inf")
