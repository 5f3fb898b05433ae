"""The upper triangle of all pairs of rows, a tile at a time: every distance within a bound that the tile tells."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from reid.ranking.exact import bounds, first_pass
from reid.ranking.exact.first_pass import Rows

# Tiles beside each other that one thread takes at once.
_STRIPE = 8
# A smaller job ends before a bar would be read.
_BAR_FROM = 1 << 28


@dataclass(frozen=True)
class Triangle:
    """order: (N,) int64, the rows by their distance from the mean, so that a tile's bound, made for its longest rows,
    fits all of them. parts: stretches of it, prepared for the first pass as a gallery.
    """

    order: np.ndarray
    parts: list[Rows]


@dataclass(frozen=True)
class Tile:
    """distances: (a, b) float32, each within `half_width` of the squared distance of a row and another.

    first, second: places in the order where its rows and its columns begin; the same for a tile of the diagonal.
    """

    distances: np.ndarray
    half_width: float
    first: int
    second: int


def prepare(values: np.ndarray, block: int) -> Triangle:
    """The rows (N, D) cut into stretches of at most `block`."""
    centre = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = [
        first_pass.prepare(values[start : start + block], centre, side="query", integers=False).lengths
        for start in range(0, len(values), block)
    ]
    order = np.argsort(np.concatenate(lengths), kind="stable")
    integers = first_pass.integers_pay(values.shape[1])
    parts = []
    for part in np.array_split(order, len(lengths)):
        # As a query first: -2 times the values, or the limbs in the other order, are the gallery's.
        rows = first_pass.prepare(values[part], centre, side="query", integers=integers)
        if rows.limbs is None:
            rows = dataclasses.replace(rows, values=rows.values * np.float32(-2))
        else:
            # With limbs only the width of the float32 rows is asked for.
            spared = np.broadcast_to(np.float32(0), rows.values.shape)
            rows = dataclasses.replace(rows, values=spared, limbs=_swapped(rows.limbs))
        parts.append(rows)
    return Triangle(order, parts)


def visit(triangle: Triangle, take: Callable[[Tile], None]) -> None:
    """Call `take` with every tile once, those of the diagonal first. It is called by several threads at once.

    A tile's distances lie in a buffer that `take` may change and the thread's next tile overwrites.
    """
    parts = triangle.parts
    starts = np.cumsum([0] + [len(part.squared) for part in parts]).tolist()
    own = threading.local()

    def stripe(task: tuple[int, range]) -> int:
        """The tiles of one part and some others."""
        i, others = task
        rows = _as_query(parts[i])
        buffers: dict[str, Any] = own.__dict__.setdefault("buffers", {})
        for j in others:
            distances, half_width = _distances(rows, parts[j], buffers)
            take(Tile(distances, half_width, starts[i], starts[j]))
        return len(others)

    number = len(parts)
    diagonal = [(i, range(i, i + 1)) for i in range(number)]
    above = [(i, range(j, min(j + _STRIPE, number))) for i in range(number) for j in range(i + 1, number, _STRIPE)]
    with tqdm(
        total=number * (number + 1) // 2,
        desc="neighbors",
        unit="tile",
        leave=False,
        mininterval=1.0,
        disable=parts[0].values.shape[1] * len(triangle.order) ** 2 < _BAR_FROM or None,
    ) as bar:
        for tasks in (diagonal, above):
            for done in _in_threads(stripe, tasks, integers=parts[0].limbs is not None):
                bar.update(done)


def _in_threads(
    work: Callable[[tuple[int, range]], int], tasks: list[tuple[int, range]], *, integers: bool
) -> Iterator[int]:
    """Do all tasks, each in one thread, as many at once as torch has threads.

    A tile takes many short steps, most of them in one thread; its threads would wait for each other at every one. Only
    the float32 product is left to the threads of its library.
    """
    threads = torch.get_num_threads()
    if not integers or threads == 1:
        yield from map(work, tasks)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, tasks)
    finally:
        torch.set_num_threads(threads)


def _as_query(rows: Rows) -> Rows:
    """Rows prepared as a gallery as the other side of a tile: see `Rows`."""
    if rows.limbs is None:
        return dataclasses.replace(rows, values=rows.values * np.float32(-0.5))
    return dataclasses.replace(rows, limbs=_swapped(rows.limbs))


def _swapped(limbs: np.ndarray) -> np.ndarray:
    width = limbs.shape[1] // 2
    return np.concatenate([limbs[:, width:], limbs[:, :width]], axis=1)


def _distances(first: Rows, second: Rows, buffers: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Squared distances of all pairs, (a, b) float32 in a buffer, and by how much they may be off."""
    found = first_pass.approximate(first, second, buffers)
    found.values[...] += first.squared.astype(np.float32)[:, None]
    # The term added is rounded, and so is the sum, which is at most `reach` and the error so far.
    reach = (first.lengths.max() + second.lengths.max()) ** 2
    half_width = float(found.half_width.max())
    return found.values, half_width + 1.01 * bounds.U * (first.squared.max() + reach + half_width)
