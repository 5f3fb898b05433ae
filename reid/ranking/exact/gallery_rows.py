"""Rows to be ranked, a tile of the gallery at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from reid.ranking import arrays
from reid.ranking.distance import normalize_rows
from reid.ranking.exact.counting import PLACE_BITS
from reid.ranking.exact.distances import squared_distances

# Bytes of float32 rows in a tile of the gallery.
_TILE_BYTES = 1 << 24
# Most rows in a tile, so that a block of queries by a tile is near the cache.
_MOST_ROWS = 4096
# Pairs of rows whose exact distances are computed at once.
EXACT_ROWS = 2048


class Source:
    """Rows of a side as they are ranked: as given, or with `cosine` divided by their lengths.

    side: what errors call them, "query" or "gallery".
    """

    def __init__(self, values: Any, metric: str, side: str = "gallery") -> None:
        self.values = values.detach() if arrays.is_tensor(values) else values
        self.unit, self.side = metric == "cosine", side
        self.width = int(values.shape[1])

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        found = arrays.rows_of(self.values, rows)
        if not self.unit:
            return found
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        return normalize_rows(found, side=self.side, numbers=numbers)

    def all(self) -> Source:
        """The same with all rows in memory, divided once and for all."""
        return Source(self[:], "euclidean", self.side)


def stretches(gallery: Source, *, title: str = "ranking") -> Iterator[tuple[int, int]]:
    """(first, stop) of each stretch of the gallery, with progress where that takes more than some seconds."""
    on_device = arrays.is_tensor(gallery.values)
    room = _TILE_BYTES * (16 if on_device else 1)
    rows = min(room // (4 * max(1, gallery.width)), 1 << PLACE_BITS if on_device else _MOST_ROWS)
    step = 1 << max(8, rows.bit_length() - 1)
    with tqdm(total=len(gallery), desc=title, unit="row", unit_scale=True, leave=False, delay=3.0) as progress:
        for first in range(0, len(gallery), step):
            stop = min(first + step, len(gallery))
            yield first, stop
            progress.update(stop - first)


def pair_distances(first: Source, second: Any, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Exact squared distances of `first[rows]` and `second[places]`: (n,), (n,) int64 -> (n,) float64."""
    width = max(len(second), 1)
    pairs, inverse = np.unique(rows * width + places, return_inverse=True)
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), EXACT_ROWS):
        part = pairs[start : start + EXACT_ROWS]
        distances = squared_distances(first[part // width], arrays.rows_of(second, part % width))
        found[start : start + len(part)] = arrays.host(distances)
    return found[inverse]


def center_of(query: Source) -> Any:
    """The mean row, float32: what both sides are moved by, since distances around a far origin lose digits.

    Where it is NaN or infinite it is 0, so that errors name the rows that made it so, and no other ones.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = arrays.as_type(query[:].mean(0), "float32")
    mean[~(abs(mean) < np.inf)] = 0.0
    return mean
