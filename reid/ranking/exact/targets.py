"""The distances that gallery rows are compared with: those of each query's targets, as intervals or exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact.first_pass import PreparedRows, approximate, prepare_rows
from reid.ranking.exact.gallery_rows import RowSource, unique_pair_distances

_QUERY_BATCH = 64
# Few, since the width of a target's interval leaves comparisons open with every row of the gallery.
_COLUMNS = 128


class Targets:
    """Target rows of the queries, and what is known of their squared distances.

    Args:
        query: Source of the Q queries.
        prepared: The same queries prepared for the first pass.
        gallery: Source of the gallery.
        center: (D,) float32, what `prepared` was centered by.
        offsets: (Q + 1,) int64; query i owns indices[offsets[i]:offsets[i + 1]].
        indices: (M,) int64 gallery indices of the targets.

    Attributes:
        owner: (M,) int64 query of each target, ascending.
        indices: (M,) int64 gallery index of each target.
        lower: (M,) float64 lower bound of its squared distance.
        upper: (M,) float64 upper bound.
        exact: (M,) float64 squared distance, NaN until `compute_exact` has computed it.
    """

    def __init__(
        self,
        query: RowSource,
        prepared: PreparedRows,
        gallery: RowSource,
        center: Any,
        offsets: np.ndarray,
        indices: np.ndarray,
    ) -> None:
        self.indices = indices
        self.owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.lower, self.upper = _intervals(prepared, gallery, center, offsets, indices)
        self.exact = np.full(len(indices), np.nan)
        self._query, self._gallery = query, gallery

    def compute_exact(self, targets: np.ndarray) -> None:
        """Compute the exact distances of some targets, unless they are known.

        Args:
            targets: (n,) int64 numbers of targets, in any order, with repetitions.
        """
        targets = np.unique(targets)
        targets = targets[np.isnan(self.exact[targets])]
        owner, index = self.owner[targets], self.indices[targets]
        self.exact[targets] = unique_pair_distances(self._query, self._gallery, owner, index)

    def order(self) -> np.ndarray:
        """Rank the targets of each query among themselves, by exact distance and index.

        Returns:
            (M,) int64 positions, from 0.
        """
        by_distance = np.lexsort((self.indices, self.lower, self.owner))
        before, after = by_distance[:-1], by_distance[1:]
        # The intervals of a query are equally wide, so one that overlaps another also overlaps a neighbor.
        close = (self.owner[before] == self.owner[after]) & (self.lower[after] <= self.upper[before])
        self.compute_exact(np.concatenate([before[close], after[close]]))
        known = np.where(np.isnan(self.exact), (self.lower + self.upper) / 2, self.exact)
        by_distance = np.lexsort((self.indices, known, self.owner))
        order = np.empty(len(self.indices), dtype=np.int64)
        first = np.searchsorted(self.owner, self.owner)
        order[by_distance] = np.arange(len(order)) - first[by_distance]
        return order


def _intervals(
    prepared: PreparedRows, gallery: RowSource, center: Any, offsets: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (M,) float64 bounds of the squared distance of every target, from float32 products."""
    middle, half = np.empty(len(indices)), np.empty(len(indices))
    buffers: dict[str, Any] = {}
    queries = np.flatnonzero(np.diff(offsets))
    # Queries of one identity have the same targets: next to each other they read these once.
    queries = queries[np.argsort(indices[offsets[queries]], kind="stable")]
    for begin in range(0, len(queries), _QUERY_BATCH):
        part = queries[begin : begin + _QUERY_BATCH]
        number = offsets[part + 1] - offsets[part]
        row = np.repeat(np.arange(len(part)), number)
        own = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number) + offsets[part][row]
        rows, column = np.unique(indices[own], return_inverse=True)
        tile = prepare_rows(gallery[rows], center, side="gallery", integers=False, numbers=rows)
        found = approximate(prepared.without_limbs()[part], tile, buffers, columns=_COLUMNS)
        middle[own] = arrays.to_numpy(found.values[arrays.like(row, found.values), arrays.like(column, found.values)])
        middle[own] += prepared.squared[part][row]
        half[own] = found.half_width[row]
    return middle - half, middle + half
