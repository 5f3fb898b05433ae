"""Rows to be ranked, read one tile of the gallery at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.progress import progress_bar
from reid.ranking import arrays
from reid.ranking.distance import normalize_rows
from reid.ranking.exact.counting import INDEX_BITS
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.first_pass import PreparedRows

# Bytes of float32 rows in a tile of the gallery.
_TILE_BYTES = 1 << 24
# Largest number of rows in a tile on the CPU, so that a block of queries by a tile roughly fits the cache.
_MAX_TILE_ROWS = 4096
# Pairs of rows whose exact distances are computed at once.
EXACT_ROWS = 2048


class RowSource:
    """Rows of one side as they are ranked: unchanged, or divided by their length for "cosine".

    Args:
        values: (N, D) floating array, memory map, shards or tensor.
        metric: "euclidean" or "cosine".
        side: Name of the rows in error messages, "query" or "gallery".
    """

    def __init__(self, values: Any, metric: str, side: str = "gallery") -> None:
        self.values = values.detach() if arrays.is_tensor(values) else values
        self.unit, self.side = metric == "cosine", side
        self.width = int(values.shape[1])

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        selected = arrays.rows_of(self.values, rows)
        if not self.unit:
            return selected
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        return normalize_rows(selected, side=self.side, numbers=numbers)

    def load(self) -> RowSource:
        """Read all rows into memory and normalize them once.

        Returns:
            A source of the rows in memory.
        """
        return RowSource(self[:], "euclidean", self.side)


@dataclass(frozen=True)
class GalleryTile:
    """Consecutive rows of a gallery.

    Attributes:
        start: Gallery index of the first row of the range.
        stop: Index after the last row.
        indices: (T,) int64 gallery indices of the rows that count, ascending.
        rows: (T, D) these rows as they are ranked.
        prepared: The same rows prepared for the first pass.
    """

    start: int
    stop: int
    indices: np.ndarray
    rows: Any
    prepared: PreparedRows


def tile_ranges(gallery: RowSource, *, title: str = "ranking", short_first: bool = False) -> Iterator[tuple[int, int]]:
    """Divide a gallery into tiles, with a progress bar.

    Args:
        gallery: Rows, in memory or on disk.
        title: Title of the progress bar.
        short_first: Make the first tile an eighth as long, to learn what to do with the others.

    Yields:
        (start, stop) indices of each tile.
    """
    on_device = arrays.is_tensor(gallery.values)
    budget = _TILE_BYTES * (16 if on_device else 1)
    rows = min(budget // (4 * max(1, gallery.width)), 1 << INDEX_BITS if on_device else _MAX_TILE_ROWS)
    step = 1 << max(8, rows.bit_length() - 1)
    with progress_bar(title, len(gallery), unit="rows") as bar:
        starts = [0, *range(max(256, step // 8) if short_first else step, len(gallery), step)]
        for start, stop in itertools.pairwise([*starts, len(gallery)] if len(gallery) else []):
            yield start, stop
            bar.advance(stop - start)


def unique_pair_distances(first: RowSource, second: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Compute the exact squared distances of pairs of rows, each distinct pair once.

    Args:
        first: Source of A rows.
        second: (B, D) rows: a matrix or a `RowSource`.
        rows: (n,) int64 indices into `first`.
        columns: (n,) int64 indices into `second`.

    Returns:
        (n,) float64 squared distances of the pairs (first[rows[i]], second[columns[i]]).
    """
    width = max(len(second), 1)
    pairs, inverse = np.unique(rows * width + columns, return_inverse=True)
    distances = np.empty(len(pairs))
    for start in range(0, len(pairs), EXACT_ROWS):
        part = pairs[start : start + EXACT_ROWS]
        exact = squared_distances(first[part // width], arrays.rows_of(second, part % width))
        distances[start : start + len(part)] = arrays.to_numpy(exact)
    return distances[inverse]


def mean_row(query: RowSource) -> Any:
    """Return the mean row, which is subtracted from both sides because distances far from the origin lose digits.

    Args:
        query: Source of (Q, D) rows.

    Returns:
        (D,) float32. Entries that are NaN or infinite become 0, so that errors name the rows that caused them.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # In float64: rows that are nearly equal are much closer to each other than float32 sums are to their mean.
        mean = arrays.as_type(arrays.mean(query[:]), "float32")
    mean[~(abs(mean) < np.inf)] = 0.0
    return mean
