"""All query x gallery distances, one tile at a time, in float64 with a bound on their error.

Market-1501 ranking decides almost everything in a faster type. Other protocols compare each distance with many others,
such as every true match of every query, so that nearly all comparisons would be close ones there; in float64 hardly any
is.

The bound. A product in float64 gives d' = |q|^2 + |g|^2 - 2 q.g in whatever order the library sums. With unit roundoff
u = 2^-53 and D terms, each of the three sums is off by at most (D + 1) u / (1 - (D + 1) u) times the sum of the
magnitudes of its terms, the two additions by u each, and these magnitudes add up to at most (|q| + |g|)^2. The distance
in the fixed order is off by less than that. Both stay within (D + 4) u (|q| + |g|)^2 of the true distance, so they
differ by at most twice as much; 2.1 instead of 2 covers the second-order terms and the rounding of the bound itself.
Numbers below 2^-1022 lose bits or become zero, each by less than 2^-1074: 2^-1000 covers 2^74 of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from reid.errors import InputError, unknown_name
from reid.ranking.arrays import rows_of, to_numpy
from reid.ranking.distance import METRICS, normalize_rows
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.pair_distances import pair_distances

_GALLERY_ROWS = 8192
_TILE_ELEMENTS = 1 << 22
_UNDERFLOW = 2.0**-1000
# A smaller job finishes before a progress bar would be read.
_MIN_WORK_FOR_PROGRESS = 1 << 28


@dataclass(frozen=True)
class DistanceTile:
    """Distances of some queries to some gallery rows.

    Attributes:
        first_query: Index of the first query.
        first_gallery: Index of the first gallery row.
        distances: (b, g) float64, a buffer that the next tile overwrites and the caller may change.
        bound: (b,) float64; no entry of row i differs from `exact` by more than bound[i].
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

        Args:
            rows: (n,) int64 rows of the tile.
            columns: (n,) int64 columns of the tile.

        Returns:
            (n,) float64 squared distances.
        """
        return pair_distances(self.query, self.gallery, rows, columns)


def distance_tiles(query: Any, gallery: Any, *, metric: str = "euclidean", title: str = "") -> Iterator[DistanceTile]:
    """Compute the squared distance of every pair once.

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating; a memory map or shards are read one tile at a time.
        metric: "euclidean", or "cosine" for the rows divided by their length.
        title: Title of the progress bar, which is shown for large inputs.

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
    query_norms = np.concatenate([_squared_norms(queries[i : i + 2048], i) for i in range(0, len(queries), 2048)])
    work = len(queries) * len(gallery) * width
    with tqdm(
        total=len(gallery),
        desc=title,
        unit="row",
        leave=False,
        mininterval=1.0,
        disable=work < _MIN_WORK_FOR_PROGRESS or None,
    ) as bar:
        for first_gallery in range(0, len(gallery), _GALLERY_ROWS):
            rows = _rows(gallery, slice(first_gallery, first_gallery + _GALLERY_ROWS), metric)
            wide = rows.astype(np.float64)
            norms = _squared_norms(rows, first_gallery)
            longest = float(np.sqrt(norms.max()))
            for first_query in range(0, len(queries), block):
                some = queries[first_query : first_query + block]
                squares = query_norms[first_query : first_query + block]
                distances = buffer[: len(some) * len(rows)].reshape(len(some), len(rows))
                np.matmul(some.astype(np.float64) * -2.0, wide.T, out=distances)
                distances += squares[:, None]
                distances += norms
                bound = 2.1 * (width + 4) * 2.0**-53 * (np.sqrt(squares) + longest) ** 2 + _UNDERFLOW
                yield DistanceTile(first_query, first_gallery, distances, bound, some, rows)
            bar.update(len(rows))


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
        InputError: If the metric is unknown, a side is empty or the widths differ.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    for name, values in (("query", query), ("gallery", gallery)):
        if len(values) == 0:
            raise InputError(f"the {name} holds no feature row")
    if len(query.shape) != 2 or len(gallery.shape) != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features {query.shape} and gallery features {gallery.shape} must be two matrices of the same "
            "width; were they extracted by different models?"
        )


def _rows(values: Any, rows: Any, metric: str) -> np.ndarray:
    """Read `values[rows]` into memory, divided by their length for "cosine"."""
    some = to_numpy(rows_of(values, rows))
    return normalize_rows(some) if metric == "cosine" else some


def _squared_norms(rows: np.ndarray, first: int) -> np.ndarray:
    wide = rows.astype(np.float64)
    squared = np.einsum("ij,ij->i", wide, wide)
    bad = np.flatnonzero(~np.isfinite(squared))
    if len(bad):
        raise InputError(f"feature rows hold NaN, infinity or numbers too large to square, the first: {first + bad[0]}")
    return squared
