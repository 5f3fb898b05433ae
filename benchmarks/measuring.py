"""What the benchmarks measure with: turns, steps of training, processes of their own, and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # imported by nobody who has to limit the threads first
    from torch import Tensor, nn


def limit_threads(threads: int) -> None:
    """The libraries below NumPy and PyTorch read this when they are loaded: call it before."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def in_turns(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in each of `rounds` turns, so that a machine that slows down does so for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def training_step(layer: nn.Module, maps: Tensor, gradient: Tensor) -> Callable[[], None]:
    """Forward and backward of a layer, to its weights and to `maps`, with the given gradient of its output."""

    def step() -> None:
        maps.grad = None
        layer.zero_grad(set_to_none=True)
        layer(maps).backward(gradient)

    return step


def median_ratio(seconds: Sequence[float], floor: Sequence[float]) -> float:
    """The median over turns of what a step took for every second of the floor in the same turn."""
    return statistics.median(mine / least for mine, least in zip(seconds, floor, strict=True))


def alone(function: Callable[..., Any], *arguments: object) -> Any:
    """The result of a call in a fresh process; None where the system ended it, as it does for too much memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, MemoryError):
            return None


class Peak:
    """The most memory that this process holds while the block runs, as another process sees it every few milliseconds.

    start, most: bytes in memory that no file stands behind: mapped features and the libraries' code don't count.
    extra: what the block added. NaN where the system has no /proc.
    """

    def __enter__(self) -> Self:
        self.start = self.most = float("nan")
        self._watcher = None
        if Path("/proc/self/status").exists():
            command = [sys.executable, "-c", _WATCH, str(os.getpid())]
            self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._watcher.stdout is not None
            self.start = float(self._watcher.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self.most = float(self._watcher.communicate()[0])

    @property
    def extra(self) -> float:
        return self.most - self.start


# Reads until its input is closed. Within the process a thread would have to wait for the interpreter's lock.
_WATCH = """
import select, sys
def held():
    with open(f"/proc/{sys.argv[1]}/status", encoding="ascii") as file:
        return 1024 * int(file.read().split("RssAnon:")[1].split()[0])
most = held()
print(most, flush=True)
while not select.select([sys.stdin], [], [], 0.003)[0]:
    most = max(most, held())
print(max(most, held()))
"""
