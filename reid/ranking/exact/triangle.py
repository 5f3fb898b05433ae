"""The upper triangle of all pairs of rows, one tile at a time, every distance within the bound of its tile."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid.progress import progress_bar
from reid.ranking.exact import bounds, first_pass
from reid.ranking.exact.first_pass import PreparedRows

# Adjacent tiles per task of a thread.
_TILES_PER_TASK = 8


@dataclass(frozen=True)
class Triangle:
    """Rows divided into parts that form the tiles.

    Attributes:
        order: (N,) int64 rows by their distance from the mean, so that a tile's bound, which is made for its longest
            rows, suits all of them.
        parts: Consecutive stretches of `order`, prepared for the first pass as a gallery.
    """

    order: np.ndarray
    parts: list[PreparedRows]


@dataclass(frozen=True)
class TriangleTile:
    """Approximate distances of two parts of a triangle.

    Attributes:
        distances: (a, b) float32, each within `half_width` of the squared distance.
        half_width: Bound on the error.
        first: Position in `Triangle.order` of the first row.
        second: Position of the first column; equal to `first` for a tile on the diagonal.
    """

    distances: np.ndarray
    half_width: float
    first: int
    second: int


def prepare_triangle(values: np.ndarray, block: int) -> Triangle:
    """Divide rows into parts and prepare them for the first pass.

    Args:
        values: (N, D) floating.
        block: Largest number of rows in a part.

    Returns:
        Rows ordered by their distance from the mean, in parts of at most `block`.
    """
    center = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = [
        first_pass.prepare_rows(values[start : start + block], center, side="query", integers=False).lengths
        for start in range(0, len(values), block)
    ]
    order = np.argsort(np.concatenate(lengths), kind="stable")
    integers = first_pass.is_int8_faster(values.shape[1])
    parts = []
    for part in np.array_split(order, len(lengths)):
        # As a query first: -2 times the values, or the limbs in the other order, are the gallery's.
        rows = first_pass.prepare_rows(values[part], center, side="query", integers=integers)
        if rows.limbs is None:
            rows = dataclasses.replace(rows, values=rows.values * np.float32(-2))
        else:
            # With limbs, only the width of the float32 rows is needed.
            placeholder = np.broadcast_to(np.float32(0), rows.values.shape)
            rows = dataclasses.replace(rows, values=placeholder, limbs=_swapped(rows.limbs))
        parts.append(rows)
    return Triangle(order, parts)


def for_each_tile(triangle: Triangle, process: Callable[[TriangleTile], None]) -> None:
    """Call a function with every tile once, those on the diagonal first.

    Args:
        triangle: Result of `prepare_triangle`.
        process: Called from several threads at once. The distances are in a buffer that it may change and that the
            thread's next tile overwrites.
    """
    parts = triangle.parts
    starts = np.cumsum([0] + [len(part.squared) for part in parts]).tolist()
    local = threading.local()

    def run(task: tuple[int, range]) -> int:
        """Process the tiles of one part and some others."""
        i, others = task
        rows = _as_query(parts[i])
        buffers: dict[str, Any] = local.__dict__.setdefault("buffers", {})
        for j in others:
            distances, half_width = _distances(rows, parts[j], buffers)
            process(TriangleTile(distances, half_width, starts[i], starts[j]))
        return len(others)

    number, step = len(parts), _TILES_PER_TASK
    diagonal = [(i, range(i, i + 1)) for i in range(number)]
    above = [(i, range(j, min(j + step, number))) for i in range(number) for j in range(i + 1, number, step)]
    with progress_bar("neighbors", number * (number + 1) // 2, unit="tiles") as bar:
        for tasks in (diagonal, above):
            for done in _in_threads(run, tasks, integers=parts[0].limbs is not None):
                bar.advance(done)


def _in_threads(
    run: Callable[[tuple[int, range]], int], tasks: list[tuple[int, range]], *, integers: bool
) -> Iterator[int]:
    """Run every task in one thread, as many at once as torch has threads.

    A tile takes many short steps, most of them single-threaded; parallel threads within a step would wait for each
    other at every one. Only the float32 product is left to the threads of its library.
    """
    threads = torch.get_num_threads()
    if not integers or threads == 1:
        yield from map(run, tasks)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(run, tasks)
    finally:
        torch.set_num_threads(threads)


def _as_query(rows: PreparedRows) -> PreparedRows:
    """Turn rows prepared as a gallery into queries."""
    if rows.limbs is None:
        return dataclasses.replace(rows, values=rows.values * np.float32(-0.5))
    return dataclasses.replace(rows, limbs=_swapped(rows.limbs))


def _swapped(limbs: np.ndarray) -> np.ndarray:
    width = limbs.shape[1] // 2
    return np.concatenate([limbs[:, width:], limbs[:, :width]], axis=1)


def _distances(first: PreparedRows, second: PreparedRows, buffers: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Return (a, b) float32 squared distances of all pairs, in a buffer, and a bound on their error."""
    found = first_pass.approximate(first, second, buffers)
    found.values[...] += first.squared.astype(np.float32)[:, None]
    # The added term is rounded, and so is the sum, which is at most `reach` and the error so far.
    reach = (first.lengths.max() + second.lengths.max()) ** 2
    half_width = float(found.half_width.max())
    return found.values, half_width + 1.01 * bounds.U * (first.squared.max() + reach + half_width)
