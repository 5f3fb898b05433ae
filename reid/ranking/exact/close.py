"""Float64 distances of queries from which many rows are equally far, or so nearly that float32 cannot distinguish them.

Collapsed features, of which all rows are (nearly) equal, are the extreme case; binary features, a few clusters of equal
rows and one row far from all others are milder ones. Three means replace the exact comparison of every pair:

- Queries near each other are centered by one of them, in float64, so that the bound fits the distances among them.
- Where the numbers lie on a grid that is coarse enough, float64 products have no rounding error: ties are known.
- Equal rows of a tile are compared once.

docs/ranking.md derives the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact import bounds
from reid.ranking.exact.equal_rows import equal_rows
from reid.ranking.exact.gallery_rows import RowSource

# A query is centered by a row at least this many times closer than the center that it has.
_CLOSER = 16
_MIN_GROUP = 8
# Rows tried as further centers, and how many in succession may be refused.
_MAX_CENTERS, _MAX_REFUSED = 64, 8
# Numbers of float64 at once.
_CHUNK_ELEMENTS = 1 << 21
# For longer rows, float32 could overflow.
_MAX_EXACT_FLOAT32 = 2.0**60
# Gallery rows whose lengths differ by less than 2^2 share a bound.
_LENGTH_BITS = 2


@dataclass(frozen=True)
class QueryGroup:
    """Queries near each other.

    Attributes:
        numbers: (n,) int64 queries, ascending.
        center: (D,) float64, subtracted from both sides.
    """

    numbers: np.ndarray
    center: np.ndarray


@dataclass(frozen=True)
class DistinctRows:
    """The distinct rows of a tile.

    Attributes:
        values: (U, D) float64.
        first: (U,) int64, for each the first row of the tile that equals it.
        inverse: (T,) int64, for each row of the tile the distinct row that it equals.
        grid: (U,) float64 of `bounds.grid`.
    """

    values: np.ndarray
    first: np.ndarray
    inverse: np.ndarray
    grid: np.ndarray


@dataclass(frozen=True)
class CloseDistances:
    """Distances of a few queries of a group to some rows of a tile.

    Attributes:
        queries: (b,) int64 queries, ascending.
        columns: (t,) int64 rows of the tile, ascending.
        distinct: (u,) int64, for each distinct one among them a row of the tile that equals it.
        inverse: (t,) int64, for each column the distinct row that it equals.
        values: (b, u) float64 squared distances to the distinct rows; the caller may change them.
        half_width: (b,) float64 bounds on their error; 0 where they are those of `squared_distances`.
    """

    queries: np.ndarray
    columns: np.ndarray
    distinct: np.ndarray
    inverse: np.ndarray
    values: np.ndarray
    half_width: np.ndarray


def group_queries(query: RowSource) -> list[QueryGroup]:
    """Divide queries into groups of near ones.

    The row farthest from all centers so far is tried as a further one, which finds clusters however unequal their
    offsets are. It is used for the queries that it is much closer to than their center.

    Args:
        query: Source of (Q, D) rows in memory, Q > 0.

    Returns:
        Groups that together contain each query once; the first may consist of rows far from each other.
    """
    center = sum(part.sum(axis=0) for _, part in _wide_parts(query)) / len(query)
    distance = _distances_from(query, center)
    # On a coarse grid, so that centering does not take whole numbers off theirs.
    unit = np.ldexp(1.0, int(np.frexp(np.median(distance))[1]) - 8)
    centers, owner = [np.rint(center / unit) * unit if distance.any() else center], np.zeros(len(query), dtype=np.int64)
    refused = 0
    for _ in range(_MAX_CENTERS):
        farthest = int(distance.argmax())
        if distance[farthest] <= 0 or refused == _MAX_REFUSED:
            break
        center = _wide(query, slice(farthest, farthest + 1))[0]
        from_here = _distances_from(query, center)
        closer = np.flatnonzero(from_here * _CLOSER < distance)
        distance[farthest] = 0.0
        refused += 1
        if len(closer) >= _MIN_GROUP:
            owner[closer], distance[closer] = len(centers), from_here[closer]
            centers.append(center)
            refused = 0
    groups = [QueryGroup(np.flatnonzero(owner == number), center) for number, center in enumerate(centers)]
    return [group for group in groups if len(group.numbers)]


def distinct_rows(rows: Any) -> DistinctRows:
    """Find equal rows.

    Args:
        rows: (T, D) floating array or tensor.

    Returns:
        The distinct rows, in host memory.
    """
    wide = _wide(rows, slice(None))
    first, inverse = equal_rows(wide)
    values = wide if len(first) == len(wide) else wide[first]
    return DistinctRows(values, first, inverse, bounds.grid(values))


def close_distances(query: RowSource, group: QueryGroup, rows: DistinctRows) -> Iterator[CloseDistances]:
    """Compute the distances of a group to the rows of a tile.

    Args:
        query: Source of all queries, in memory.
        group: Some of them.
        rows: Distinct rows of the tile.

    Yields:
        Every pair once.
    """
    centered = rows.values - group.center
    squared = np.einsum("ij,ij->i", centered, centered)
    center_grid = float(bounds.grid(group.center[None])[0])
    for columns, part, inverse in _of_similar_length(squared, rows.inverse):
        some = centered if len(part) == len(centered) else centered[part]
        longest, grid = float(np.sqrt(squared[part].max())), min(center_grid, float(rows.grid[part].min()))
        step = max(1, _CHUNK_ELEMENTS // max(len(columns), rows.values.shape[1]))
        for start in range(0, len(group.numbers), step):
            numbers = group.numbers[start : start + step]
            own = _wide(query, numbers)
            finest = min(grid, float(bounds.grid(own).min()))
            own = (own - group.center) * -2.0
            own_squared = np.einsum("ij,ij->i", own, own) / 4
            reach = np.sqrt(own_squared) + longest
            if bounds.is_exact(reach, finest, bits=24).all() and longest < _MAX_EXACT_FLOAT32:
                values = (own.astype(np.float32) @ some.astype(np.float32).T).astype(np.float64)
            else:
                values = own @ some.T
            values += own_squared[:, None]
            values += squared[part]
            half = bounds.float64_distance(reach, own.shape[1])
            half[bounds.is_exact(reach, finest)] = 0.0
            yield CloseDistances(numbers, columns, rows.first[part], inverse, values, half)


def _of_similar_length(squared: np.ndarray, inverse: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Divide rows by length, since a bound is made for the longest; yields columns, distinct rows and their inverse."""
    some = squared > 0
    # The most usual length is in the middle of its class.
    scale = np.median(squared[some]) if some.any() else 1.0
    size = np.where(some, (np.frexp(squared / scale)[1] + _LENGTH_BITS - 1) // (2 * _LENGTH_BITS), -(1 << 20))
    for one in np.unique(size):
        part = np.flatnonzero(size == one)
        position = np.full(len(size), -1)
        position[part] = np.arange(len(part))
        position = position[inverse]
        columns = np.flatnonzero(position >= 0)
        yield columns, part, position[columns]


def _wide(rows: Any, some: slice | np.ndarray) -> np.ndarray:
    """Return rows as float64 in host memory; possibly the rows themselves, which must not be changed."""
    return arrays.to_numpy(arrays.as_type(arrays.rows_of(rows, some), "float64"))


def _wide_parts(query: RowSource) -> Iterator[tuple[slice, np.ndarray]]:
    step = max(1, _CHUNK_ELEMENTS // query.width)
    for start in range(0, len(query), step):
        yield slice(start, start + step), _wide(query, slice(start, start + step))


def _distances_from(query: RowSource, center: np.ndarray) -> np.ndarray:
    distances = np.empty(len(query))
    for part, rows in _wide_parts(query):
        rest = rows - center
        distances[part] = np.sqrt(np.einsum("ij,ij->i", rest, rest))
    return distances
