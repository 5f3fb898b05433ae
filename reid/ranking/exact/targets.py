"""The distances that gallery rows are compared with: those of each query's targets, in intervals or exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.first_pass import Rows, approximate, prepare
from reid.ranking.exact.gallery_rows import EXACT_ROWS, Source

_QUERIES_AT_ONCE = 64
# Few, since the width of a target's interval leaves comparisons open with every row of the gallery.
_COLUMNS = 128


class Targets:
    """Gallery rows asked for by queries, and what is known of their squared distances.

    owner: (M,) int64, the query of each, ascending. places: (M,) int64, its gallery index. least, most: (M,) float64,
    where its distance lies. exact: (M,) float64, the distance, NaN until `settle` has computed it.
    """

    def __init__(
        self, query: Source, asked: Rows, gallery: Source, centre: Any, offsets: np.ndarray, places: np.ndarray
    ) -> None:
        self.places = places
        self.owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.least, self.most = _intervals(asked, gallery, centre, offsets, places)
        self.exact = np.full(len(places), np.nan)
        self._query, self._gallery = query, gallery

    def settle(self, wanted: np.ndarray) -> None:
        """Compute the exact distances of these targets: int64, in any order, some perhaps twice."""
        wanted = np.unique(wanted)
        wanted = wanted[np.isnan(self.exact[wanted])]
        for start in range(0, len(wanted), EXACT_ROWS):
            part = wanted[start : start + EXACT_ROWS]
            distances = squared_distances(self._query[self.owner[part]], self._gallery[self.places[part]])
            self.exact[part] = arrays.host(distances)

    def order(self) -> np.ndarray:
        """(M,) int64, each target's place among those of its query, from 0, by exact distance and index."""
        by_distance = np.lexsort((self.places, self.least, self.owner))
        before, after = by_distance[:-1], by_distance[1:]
        # The intervals of a query are equally wide, so whoever overlaps another one overlaps a neighbor.
        close = (self.owner[before] == self.owner[after]) & (self.least[after] <= self.most[before])
        self.settle(np.concatenate([before[close], after[close]]))
        known = np.where(np.isnan(self.exact), (self.least + self.most) / 2, self.exact)
        by_distance = np.lexsort((self.places, known, self.owner))
        order = np.empty(len(self.places), dtype=np.int64)
        first = np.searchsorted(self.owner, self.owner)
        order[by_distance] = np.arange(len(order)) - first[by_distance]
        return order


def _intervals(
    asked: Rows, gallery: Source, centre: Any, offsets: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the squared distance of every target lies, by float32 products and their bound: two (M,) float64."""
    middle, half = np.empty(len(places)), np.empty(len(places))
    buffers: dict[str, Any] = {}
    wanted = np.flatnonzero(np.diff(offsets))
    # Queries of one person have the same targets: side by side these are read once.
    wanted = wanted[np.argsort(places[offsets[wanted]], kind="stable")]
    for begin in range(0, len(wanted), _QUERIES_AT_ONCE):
        part = wanted[begin : begin + _QUERIES_AT_ONCE]
        number = offsets[part + 1] - offsets[part]
        row = np.repeat(np.arange(len(part)), number)
        mine = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number) + offsets[part][row]
        rows, column = np.unique(places[mine], return_inverse=True)
        tile = prepare(gallery[rows], centre, side="gallery", integers=False, numbers=rows)
        found = approximate(asked[part].without_limbs(), tile, buffers, columns=_COLUMNS)
        middle[mine] = arrays.host(found.values[arrays.like(row, found.values), arrays.like(column, found.values)])
        middle[mine] += asked.squared[part][row]
        half[mine] = found.half_width[row]
    return middle - half, middle + half
