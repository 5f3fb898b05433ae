"""The nearest neighbors of every row among all rows, and its farthest, exactly, without an N x N array.

One pass over the upper triangle of all pairs, a tile at a time: a tile of rows I and J serves the rows of I and, read
by columns, those of J. It gives every distance only within a proven bound, which leaves each row a short list of pairs
that may belong to its k nearest; only their distances are computed exactly, in float64.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.pair_distances import paired_distances
from reid.ranking.exact.shortlist import Shortlist
from reid.ranking.exact.tiles import tiles
from reid.ranking.exact.triangle import Tile, prepare, visit

_ROWS = 1024
_SELECTED_ROWS = 4096
_PLAIN_ROWS = 64
# Places kept beyond the k nearest; of farthest ones.
_SPARE, _FARTHEST = 64, 16


@dataclass(frozen=True)
class SelfNeighbors:
    """indices: (N, k) int64, each row's k nearest, itself first, then by distance and, where equal, by index.

    distances: (N, k) float64, squared Euclidean, the first 0. largest: (N,) float64, the largest of the row to any.
    """

    indices: np.ndarray
    distances: np.ndarray
    largest: np.ndarray


def nearest_and_largest(values: np.ndarray, k: int, *, block: int = 1024) -> SelfNeighbors:
    """The k nearest rows of every row of `values` (N, D), floating, and its largest distance.

    Distances are those of `squared_distances`, so the answer is the same for every `block` (rows of a tile), number of
    threads and way of the first pass. Memory is O(N (k + D) + block^2), with two or four bytes a number of `values`.
    Raises InputError for k outside 1 .. N, a block below 1, and rows that are not finite or too long for float32.
    """
    if not 1 <= k <= len(values):
        raise InputError(f"{k} nearest rows of {len(values)} were asked for: k must be 1 .. {len(values)}")
    if block < 1:
        raise InputError(f"a block holds at least one row, not {block}")
    check_rows(values, "feature")
    kept, copies = _surplus_copies(values, k)
    if not len(copies):
        return _search(values, k, block)
    # Of rows equal to the bit only the k first can be anybody's neighbors, and every one's neighbors are those.
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
    """Raise InputError for rows with NaN or infinity, or too long for float32 distances. name: what a row is one of."""
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
    """Rows left when every group of equal rows is cut to its k first, and of each cut group its first and the cut."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, values.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(values), dtype=np.uint64)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64) + 0.0  # the sum makes a minus zero a zero
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
    triangle = prepare(values, block)
    near = Shortlist.empty(len(values), k, min(len(values), k + _SPARE))
    far = Shortlist.empty(len(values), 1, min(len(values), _FARTHEST))
    lock = threading.Lock()

    def take(tile: Tile) -> None:
        # Far first: near changes the diagonal.
        _offer_far(tile, 0, far, lock)
        if tile.first == tile.second:
            _offer_diagonal(tile, near, lock)
        else:
            _offer_far(tile, 1, far, lock)
            _offer_near(tile, near, lock)

    visit(triangle, take)
    near.close()
    far.close()
    return _select(values, triangle.order, k, near, far)


def _offer_diagonal(tile: Tile, near: Shortlist, lock: threading.Lock) -> None:
    """The tile of a part with itself, read by rows alone."""
    distances, start = tile.distances, tile.first
    size = len(distances)
    # A row is nearer to itself than to any other.
    np.fill_diagonal(distances, -np.inf)
    if size > near.wanted:
        last = np.partition(distances, near.wanted - 1, axis=1)[:, near.wanted - 1].astype(np.float64)
        near.cutoff[start : start + size] = np.maximum(last, 0.0) + tile.half_width
    limits = _above(near.cutoff[start : start + size] + tile.half_width)
    rows, columns = np.divmod(np.flatnonzero(distances <= limits[:, None]), size)
    found = np.where(rows == columns, np.float32(0), distances[rows, columns])
    with lock:
        near.offer(start + rows, start + columns, found.astype(np.float64) - tile.half_width, tile.half_width)


def _offer_near(tile: Tile, near: Shortlist, lock: threading.Lock) -> None:
    """A tile off the diagonal, read by rows and by columns."""
    distances, first, second = tile.distances, tile.first, tile.second
    by_row = _above(near.cutoff[first : first + distances.shape[0]] + tile.half_width)
    by_column = _above(near.cutoff[second : second + distances.shape[1]] + tile.half_width)
    mask = distances <= by_row[:, None]
    mask |= distances <= by_column
    places = np.flatnonzero(mask)
    rows, columns = np.divmod(places, distances.shape[1])
    found = distances.reshape(-1)[places]
    for limits, own, other, at, to in (
        (by_row, rows, columns, first, second),
        (by_column, columns, rows, second, first),
    ):
        taken = found <= limits[own]
        lowest = found[taken].astype(np.float64) - tile.half_width
        with lock:
            near.offer(at + own[taken], to + other[taken], lowest, tile.half_width)


def _offer_far(tile: Tile, axis: int, far: Shortlist, lock: threading.Lock) -> None:
    """What may be farthest from the rows of the tile (axis 0) or its columns (1): scores are distances below zero."""
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
    places = np.flatnonzero(some >= (limits[:, None] if axis == 0 else limits))
    pair = np.divmod(places, some.shape[1])
    lowest = -some.reshape(-1)[places].astype(np.float64) - tile.half_width
    with lock:
        far.offer(first + rows[pair[axis]], second + pair[1 - axis], lowest, tile.half_width)


def _above(limits: np.ndarray) -> np.ndarray:
    """float64 -> the next float32 above."""
    with np.errstate(over="ignore"):
        return np.nextafter(limits.astype(np.float32), np.float32(np.inf))


def _select(values: np.ndarray, order: np.ndarray, k: int, near: Shortlist, far: Shortlist) -> SelfNeighbors:
    """The exact distances of what was shortlisted, and the k nearest and the farthest by these."""
    shape = (len(order), k)
    indices, distances = np.empty(shape, dtype=np.int64), np.empty(shape)
    largest = np.empty(len(order))
    near_pairs, far_pairs = near.pairs(), far.pairs()
    exact = _exact(values, order, *(np.concatenate(both) for both in zip(near_pairs, far_pairs, strict=True)))
    near_exact, far_exact = exact[: len(near_pairs[0])], exact[len(near_pairs[0]) :]
    some = far.held > 0
    largest[order[some]] = np.maximum.reduceat(far_exact, (np.cumsum(far.held) - far.held)[some])
    ends = np.cumsum(near.held)
    for start in range(0, len(order), _SELECTED_ROWS):
        held = near.held[start : start + _SELECTED_ROWS]
        part = slice(int(ends[start] - near.held[start]), int(ends[start + len(held) - 1]))
        taken = np.arange(held.max(initial=k)) < held[:, None]
        index, distance = np.full(taken.shape, len(order)), np.full(taken.shape, np.inf)
        index[taken], distance[taken] = order[near_pairs[1][part]], near_exact[part]
        rows = order[start : start + len(held)]
        distance[index == rows[:, None]] = -1.0
        by_index = np.argsort(index, axis=1)
        index, distance = (np.take_along_axis(found, by_index, axis=1) for found in (index, distance))
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
        indices[rows] = np.take_along_axis(index, nearest, axis=1)
        distances[rows] = np.maximum(np.take_along_axis(distance, nearest, axis=1), 0.0)
    crowded = order[near.crowded | far.crowded]
    for start in range(0, len(crowded), _PLAIN_ROWS):
        rows = np.sort(crowded[start : start + _PLAIN_ROWS])
        indices[rows], distances[rows], largest[rows] = _plainly(values, rows, k)
    return SelfNeighbors(indices, distances, largest)


def _exact(values: np.ndarray, order: np.ndarray, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) float64: the distances of pairs given by their places in `order`, each computed once for both its ends."""
    keys, pair = np.unique(np.minimum(rows, places) * len(order) + np.maximum(rows, places), return_inverse=True)
    return paired_distances(values, values, order[keys // len(order)], order[keys % len(order)])[pair]


def _plainly(values: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest, their distances and the largest distance of a few rows, in float64 against all others."""
    every, bound = np.empty((len(rows), len(values))), np.zeros(len(rows))
    for tile in tiles(values[rows], values):
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
