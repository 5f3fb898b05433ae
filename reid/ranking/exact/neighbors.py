"""Exact nearest neighbors of every row among all rows, and its largest distance, without an N x N array.

One pass over the upper triangle of all pairs, one tile at a time: a tile of rows I and J serves the rows of I and, read
by columns, those of J. It gives every distance within a proven bound, which leaves each row a shortlist of pairs that
may belong to its k nearest; only their distances are computed exactly, in float64.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.pair_distances import pair_distances
from reid.ranking.exact.shortlist import Shortlist
from reid.ranking.exact.tiles import distance_tiles
from reid.ranking.exact.triangle import TriangleTile, for_each_tile, prepare_triangle

_ROWS = 1024
_SELECTION_BATCH = 4096
_DIRECT_BATCH = 64
# Shortlist entries beyond the k nearest, and for the farthest.
_SPARE, _FARTHEST = 64, 16


@dataclass(frozen=True)
class SelfNeighbors:
    """The nearest neighbors of every row.

    Attributes:
        indices: (N, k) int64, the k nearest rows: the row itself first, then by distance and, if equal, by index.
        distances: (N, k) float64 squared Euclidean distances, the first 0.
        largest: (N,) float64, the largest squared distance of the row to any row.
    """

    indices: np.ndarray
    distances: np.ndarray
    largest: np.ndarray


def nearest_and_largest(values: np.ndarray, k: int, *, block: int = 1024) -> SelfNeighbors:
    """Find the k nearest rows of every row, and its largest distance.

    Distances are those of `squared_distances`, so the result is the same for every block size, number of threads and
    first pass. Memory is O(N (k + D) + block^2), with two or four bytes per number of `values`.

    Args:
        values: (N, D) floating.
        k: Neighbors per row including itself, 1 .. N.
        block: Rows per tile.

    Returns:
        The neighbors of every row.

    Raises:
        InputError: If k is outside 1 .. N, the block is below 1, or rows are not finite or too long for float32.
    """
    if not 1 <= k <= len(values):
        raise InputError(f"k {k}: must be in [1, {len(values)}], at most the number of rows")
    if block < 1:
        raise InputError(f"block {block}: must be at least 1 row")
    check_rows(values, "feature")
    kept, copies = _surplus_copies(values, k)
    if not len(copies):
        return _search(values, k, block)
    # Of identical rows only the first k can be neighbors of any row, and they are the neighbors of each other.
    found = _search(values[kept], k, block)
    indices, distances = np.empty((len(values), k), dtype=np.int64), np.zeros((len(values), k))
    largest = np.empty(len(values))
    indices[kept], distances[kept], largest[kept] = kept[found.indices], found.distances, found.largest
    for first, rest in copies:
        indices[rest, 0] = rest
        indices[rest, 1:] = np.sort(indices[first])[: k - 1]
        largest[rest] = largest[first]
    return SelfNeighbors(indices, distances, largest)


def check_rows(values: np.ndarray, name: str) -> None:
    """Check that float32 distances of rows can be computed.

    Args:
        values: (N, D) floating.
        name: Name of a row in error messages, such as "gallery feature".

    Raises:
        InputError: If rows have NaN or infinity, or are too long for float32 distances.
    """
    for start in range(0, len(values), _ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            part = values[start : start + _ROWS].astype(np.float64)
            squared = np.einsum("ij,ij->i", part, part)
        if (squared <= np.finfo(np.float32).max / 64).all():
            continue
        broken = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if len(broken):
            raise InputError(f"{name} row {start + broken[0]} holds NaN or infinity")
        row = int(squared.argmax())
        raise InputError(
            f"{name} row {start + row} has the squared length {squared[row]:.3g}, too large for float32 distances; has "
            "the training diverged? Otherwise divide all features by a constant, which keeps the ranking"
        )


def _surplus_copies(values: np.ndarray, k: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Return the rows without copies beyond the first k, and (first row, further copies) of each group cut."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, values.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(values), dtype=np.uint64)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64) + 0.0  # adding 0 turns -0 into 0
        bits = part.view(np.uint64)
        keys[start : start + _ROWS] = ((bits ^ (bits >> np.uint64(32))) * multipliers).sum(axis=1)
    _, group, size = np.unique(keys, return_inverse=True, return_counts=True)
    kept, copies = np.ones(len(values), dtype=bool), []
    for large in np.flatnonzero(size > k):
        members = np.flatnonzero(group == large)
        equal = members[(values[members] == values[members[0]]).all(axis=1)]
        if len(equal) > k:
            kept[equal[k:]] = False
            copies.append((int(equal[0]), equal[k:]))
    return np.flatnonzero(kept), copies


def _search(values: np.ndarray, k: int, block: int) -> SelfNeighbors:
    triangle = prepare_triangle(values, block)
    near = Shortlist.empty(len(values), k, min(len(values), k + _SPARE))
    far = Shortlist.empty(len(values), 1, min(len(values), _FARTHEST))
    lock = threading.Lock()

    def process(tile: TriangleTile) -> None:
        # Far first: near changes the diagonal.
        _add_far(tile, 0, far, lock)
        if tile.first == tile.second:
            _add_diagonal(tile, near, lock)
        else:
            _add_far(tile, 1, far, lock)
            _add_near(tile, near, lock)

    for_each_tile(triangle, process)
    near.finalize()
    far.finalize()
    return _select(values, triangle.order, k, near, far)


def _add_diagonal(tile: TriangleTile, near: Shortlist, lock: threading.Lock) -> None:
    """Add a tile on the diagonal, read only by rows."""
    distances, start = tile.distances, tile.first
    size = len(distances)
    # A row is nearer to itself than to any other.
    np.fill_diagonal(distances, -np.inf)
    if size > near.k:
        last = np.partition(distances, near.k - 1, axis=1)[:, near.k - 1].astype(np.float64)
        near.cutoff[start : start + size] = np.maximum(last, 0.0) + tile.half_width
    limits = _above(near.cutoff[start : start + size] + tile.half_width)
    rows, columns = np.divmod(np.flatnonzero(distances <= limits[:, None]), size)
    found = np.where(rows == columns, np.float32(0), distances[rows, columns])
    with lock:
        near.add(start + rows, start + columns, found.astype(np.float64) - tile.half_width, tile.half_width)


def _add_near(tile: TriangleTile, near: Shortlist, lock: threading.Lock) -> None:
    """Add a tile off the diagonal, read by rows and by columns."""
    distances, first, second = tile.distances, tile.first, tile.second
    by_row = _above(near.cutoff[first : first + distances.shape[0]] + tile.half_width)
    by_column = _above(near.cutoff[second : second + distances.shape[1]] + tile.half_width)
    mask = distances <= by_row[:, None]
    mask |= distances <= by_column
    flat = np.flatnonzero(mask)
    rows, columns = np.divmod(flat, distances.shape[1])
    found = distances.reshape(-1)[flat]
    for limits, own, other, at, to in (
        (by_row, rows, columns, first, second),
        (by_column, columns, rows, second, first),
    ):
        taken = found <= limits[own]
        lowest = found[taken].astype(np.float64) - tile.half_width
        with lock:
            near.add(at + own[taken], to + other[taken], lowest, tile.half_width)


def _add_far(tile: TriangleTile, axis: int, far: Shortlist, lock: threading.Lock) -> None:
    """Add what may be farthest from the rows (axis 0) or columns (axis 1) of a tile; scores are negated distances."""
    first, second = (tile.first, tile.second) if axis == 0 else (tile.second, tile.first)
    own = slice(first, first + tile.distances.shape[axis])
    farthest = tile.distances.max(axis=1 - axis).astype(np.float64)
    with lock:
        far.cutoff[own] = np.minimum(far.cutoff[own], tile.half_width - farthest)
        rows = np.flatnonzero(-farthest - tile.half_width <= far.cutoff[own])
        limits = -_above(far.cutoff[own][rows] + tile.half_width)
    if not len(rows):
        return
    some = np.take(tile.distances, rows, axis=axis)
    flat = np.flatnonzero(some >= (limits[:, None] if axis == 0 else limits))
    pair = np.divmod(flat, some.shape[1])
    lowest = -some.reshape(-1)[flat].astype(np.float64) - tile.half_width
    with lock:
        far.add(first + rows[pair[axis]], second + pair[1 - axis], lowest, tile.half_width)


def _above(limits: np.ndarray) -> np.ndarray:
    """Round float64 up to the next float32."""
    with np.errstate(over="ignore"):
        return np.nextafter(limits.astype(np.float32), np.float32(np.inf))


def _select(values: np.ndarray, order: np.ndarray, k: int, near: Shortlist, far: Shortlist) -> SelfNeighbors:
    """Select the k nearest and the farthest of the shortlisted rows by exact distance."""
    shape = (len(order), k)
    indices, distances = np.empty(shape, dtype=np.int64), np.empty(shape)
    largest = np.empty(len(order))
    near_pairs, far_pairs = near.pairs(), far.pairs()
    exact = _exact(values, order, *(np.concatenate(both) for both in zip(near_pairs, far_pairs, strict=True)))
    near_exact, far_exact = exact[: len(near_pairs[0])], exact[len(near_pairs[0]) :]
    some = far.size > 0
    largest[order[some]] = np.maximum.reduceat(far_exact, (np.cumsum(far.size) - far.size)[some])
    ends = np.cumsum(near.size)
    for start in range(0, len(order), _SELECTION_BATCH):
        size = near.size[start : start + _SELECTION_BATCH]
        part = slice(int(ends[start] - near.size[start]), int(ends[start + len(size) - 1]))
        used = np.arange(size.max(initial=k)) < size[:, None]
        index, distance = np.full(used.shape, len(order)), np.full(used.shape, np.inf)
        index[used], distance[used] = order[near_pairs[1][part]], near_exact[part]
        rows = order[start : start + len(size)]
        distance[index == rows[:, None]] = -1.0
        by_index = np.argsort(index, axis=1)
        index, distance = (np.take_along_axis(found, by_index, axis=1) for found in (index, distance))
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
        indices[rows] = np.take_along_axis(index, nearest, axis=1)
        distances[rows] = np.maximum(np.take_along_axis(distance, nearest, axis=1), 0.0)
    overflowed = order[near.overflowed | far.overflowed]
    for start in range(0, len(overflowed), _DIRECT_BATCH):
        rows = np.sort(overflowed[start : start + _DIRECT_BATCH])
        indices[rows], distances[rows], largest[rows] = _search_directly(values, rows, k)
    return SelfNeighbors(indices, distances, largest)


def _exact(values: np.ndarray, order: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (n,) float64 distances of pairs of positions in `order`, each computed once for both its ends."""
    keys, pair = np.unique(np.minimum(rows, columns) * len(order) + np.maximum(rows, columns), return_inverse=True)
    return pair_distances(values, values, order[keys // len(order)], order[keys % len(order)])[pair]


def _search_directly(values: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k nearest, their distances and the largest distance of a few rows, compared with all others."""
    every, bound = np.empty((len(rows), len(values))), np.zeros(len(rows))
    for tile in distance_tiles(values[rows], values):
        own = slice(tile.first_query, tile.first_query + len(tile.distances))
        every[own, tile.first_gallery : tile.first_gallery + tile.distances.shape[1]] = tile.distances
        bound[own] = np.maximum(bound[own], tile.bound)
    indices, distances, largest = (
        np.empty((len(rows), k), dtype=np.int64),
        np.empty((len(rows), k)),
        np.empty(len(rows)),
    )
    for i, row in enumerate(rows):
        every[i, row] = 0.0
        close = np.flatnonzero(every[i] <= np.partition(every[i], k - 1)[k - 1] + 2 * bound[i])
        away = np.flatnonzero(every[i] >= every[i].max() - 2 * bound[i])
        exact = squared_distances(np.broadcast_to(values[row], (len(close), values.shape[1])), values[close])
        exact[close == row] = -1.0
        nearest = np.argsort(exact, kind="stable")[:k]
        indices[i], distances[i] = close[nearest], np.maximum(exact[nearest], 0.0)
        opposite = np.broadcast_to(values[row], (len(away), values.shape[1]))
        largest[i] = squared_distances(opposite, values[away]).max()
    return indices, distances, largest
