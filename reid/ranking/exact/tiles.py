"""All query x gallery distances, one tile at a time, in float64 with a bound on their error.

Market-1501 ranking decides almost everything in a faster type. Other protocols compare each distance with many others,
such as every true match of every query, so that nearly all comparisons would be close ones there; in float64 hardly any
is.

Both sides are centered by the median of the queries, so that features that are nearly equal are compared at the scale
of their differences; `bounds.float64_distance` bounds the error. Where the numbers lie on a coarse grid, as those of
equal rows do, there is none (`bounds.is_exact`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.progress import progress_bar
from reid.ranking.arrays import rows_of, to_numpy
from reid.ranking.distance import check_sides, normalize_rows
from reid.ranking.exact import bounds
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.equal_rows import equal_rows
from reid.ranking.exact.pair_distances import pair_distances

_GALLERY_ROWS = 8192
_TILE_ELEMENTS = 1 << 22
# Pairs per row from which equal rows are searched for.
_MANY_PAIRS = 4


@dataclass(frozen=True)
class DistanceTile:
    """Distances of some queries to some gallery rows.

    Attributes:
        first_query: Index of the first query.
        first_gallery: Index of the first gallery row.
        distances: (b, g) float64, a buffer that the next tile overwrites and the caller may change.
        bound: (b,) float64; no entry of row i differs from `exact` by more than bound[i], which may be 0.
        query: (b, D) rows of the queries.
        gallery: (g, D) rows of the gallery.
    """

    first_query: int
    first_gallery: int
    distances: np.ndarray
    bound: np.ndarray
    query: np.ndarray
    gallery: np.ndarray

    def exact(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Compute the distances of some pairs in the fixed order of summation.

        Those without an error are read from `distances`, where the caller must not have changed them. Pairs of equal
        rows are computed once.

        Args:
            rows: (n,) int64 rows of the tile.
            columns: (n,) int64 columns of the tile.

        Returns:
            (n,) float64 squared distances.
        """
        known = self.bound[rows] == 0
        exact = np.where(known, self.distances[rows, columns], 0.0)
        rows, columns = rows[~known], columns[~known]
        if len(rows) < _MANY_PAIRS * (len(self.query) + len(self.gallery)):
            exact[~known] = pair_distances(self.query, self.gallery, rows, columns)
            return exact
        first, own = self._distinct
        pairs, inverse = np.unique(own[0][rows] * len(self.gallery) + own[1][columns], return_inverse=True)
        some = first[0][pairs // len(self.gallery)], first[1][pairs % len(self.gallery)]
        exact[~known] = pair_distances(self.query, self.gallery, *some)[inverse]
        return exact

    @functools.cached_property
    def _distinct(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """For both sides, the first of each distinct row, and the distinct row that each row equals."""
        query, gallery = equal_rows(self.query), equal_rows(self.gallery)
        return (query[0], gallery[0]), (query[1], gallery[1])


def distance_tiles(query: Any, gallery: Any, *, metric: str = "euclidean", title: str = "") -> Iterator[DistanceTile]:
    """Compute the squared distance of every pair once.

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating; a memory map or shards are read one tile at a time.
        metric: "euclidean", or "cosine" for the rows divided by their length.
        title: Title of the progress bar.

    Yields:
        Tiles: gallery rows in order, and for each group of them all queries in order.

    Raises:
        InputError: If the metric is unknown, the widths differ or, with "cosine", rows are zero.
    """
    check_matrices(query, gallery, metric)
    queries = _rows(query, slice(None), metric)
    width = queries.shape[1]
    block = max(1, min(len(queries), _TILE_ELEMENTS // min(_GALLERY_ROWS, max(1, len(gallery)))))
    buffer = np.empty(block * min(_GALLERY_ROWS, len(gallery)))
    starts = range(0, len(queries), 2048)
    for i in starts:
        _check_rows(queries[i : i + 2048], i)
    center = np.median(queries[:: max(1, len(queries) // 1024)].astype(np.float64), axis=0)
    query_norms = np.concatenate([_squared_norms(queries[i : i + 2048] - center) for i in starts])
    query_grid = bounds.grid(center[None])[0]
    query_grid = min(query_grid, *(bounds.grid(queries[i : i + 2048].astype(np.float64)).min() for i in starts))
    may_be_exact = bounds.is_exact(np.sqrt(query_norms.min()), query_grid)
    with progress_bar(title, len(gallery), unit="rows") as bar:
        for first_gallery in range(0, len(gallery), _GALLERY_ROWS):
            rows = _rows(gallery, slice(first_gallery, first_gallery + _GALLERY_ROWS), metric)
            _check_rows(rows, first_gallery)
            grid = min(query_grid, bounds.grid(rows.astype(np.float64)).min()) if may_be_exact else 0.0
            wide = rows - center
            norms = _squared_norms(wide)
            longest = float(np.sqrt(norms.max()))
            for first_query in range(0, len(queries), block):
                some = queries[first_query : first_query + block]
                squares = query_norms[first_query : first_query + block]
                distances = buffer[: len(some) * len(rows)].reshape(len(some), len(rows))
                np.matmul((some - center) * -2.0, wide.T, out=distances)
                distances += squares[:, None]
                distances += norms
                reach = np.sqrt(squares) + longest
                bound = np.where(bounds.is_exact(reach, grid), 0.0, bounds.float64_distance(reach, width))
                yield DistanceTile(first_query, first_gallery, distances, bound, some, rows)
            bar.advance(len(rows))


def columns_in_tile(tile: DistanceTile, indices: np.ndarray) -> np.ndarray:
    """Select the gallery indices that a tile contains.

    Args:
        tile: Block of the distance matrix.
        indices: (n,) int64 gallery indices, ascending.

    Returns:
        (m,) int64 columns of the tile.
    """
    first, last = np.searchsorted(indices, (tile.first_gallery, tile.first_gallery + tile.distances.shape[1]))
    return indices[first:last] - tile.first_gallery


def metric_pair_distances(
    query: Any, gallery: Any, rows: np.ndarray, columns: np.ndarray, *, metric: str
) -> np.ndarray:
    """Compute the exact squared distances of pairs of rows, as a metric compares them.

    Args:
        query: (Q, D) floating array, memory map, shards or tensor.
        gallery: (G, D) floating, the same.
        rows: (n,) int64 query indices.
        columns: (n,) int64 gallery indices.
        metric: "euclidean", or "cosine" for the rows divided by their length.

    Returns:
        (n,) float64 squared distances of the pairs (query[rows[i]], gallery[columns[i]]).
    """
    distances = np.empty(len(rows))
    for start in range(0, len(rows), _GALLERY_ROWS):
        part = slice(start, start + _GALLERY_ROWS)
        distances[part] = squared_distances(_rows(query, rows[part], metric), _rows(gallery, columns[part], metric))
    return distances


def check_matrices(query: Any, gallery: Any, metric: str) -> None:
    """Check that two sides can be compared.

    Args:
        query: (Q, D) matrix.
        gallery: (G, D) matrix.
        metric: Name of the metric.

    Raises:
        InputError: If a side is empty or `check_sides` raises it.
    """
    for name, values in (("query", query), ("gallery", gallery)):
        if len(values) == 0:
            raise InputError(f"the {name} holds no feature row")
    check_sides(query, gallery, metric)


def _rows(values: Any, rows: Any, metric: str) -> np.ndarray:
    """Read `values[rows]` into memory, divided by their length for "cosine"."""
    some = to_numpy(rows_of(values, rows))
    return normalize_rows(some) if metric == "cosine" else some


def _squared_norms(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows)


def _check_rows(rows: np.ndarray, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(_squared_norms(rows.astype(np.float64))))
    if len(bad):
        raise InputError(f"feature rows hold NaN, infinity or numbers too large to square, the first: {first + bad[0]}")
