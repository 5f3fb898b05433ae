"""Tools of the benchmarks: options, tables, rounds, training steps, processes, memory and the matrix product."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # limit_threads must run before these are imported
    import numpy as np
    from torch import Tensor, nn

# Queries per matrix product.
BLOCK = 512


def benchmark_parser(description: str | None, **sizes: int) -> argparse.ArgumentParser:
    """Return a parser with an option for each size, and `--save`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the tables, as in docs/results/benchmarks")
    return parser


def show(rows: Iterable[Mapping[str, str]], name: str, about: str, save: Path | None) -> None:
    """Print rows as a Markdown table, each as soon as it is measured; `make tables` reads what `save` keeps.

    Args:
        rows: The text of each cell by the heading of its column, the same for all rows.
        name: Name of the file in `save`.
        about: What was measured: sizes, threads, rounds.
        save: Folder of the tables that are kept, None for none.
    """
    print(f"\n{about}\n")
    kept: list[Mapping[str, str]] = []
    for row in rows:
        if not kept:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)
        kept.append(row)
    if save is not None:
        from reid.io.atomic import write_text

        save.mkdir(parents=True, exist_ok=True)
        origin = {"about": about, **_origin()}
        write_text(save / f"{name}.jsonl", "".join(f"{json.dumps({**origin, 'cells': row})}\n" for row in kept))


def _origin() -> dict[str, str]:
    import torch

    from reid.training.provenance import provenance

    known = provenance()
    processor = f"{known['machine']['processor']}, {torch.backends.cpu.get_cpu_capability()}"
    return {"commit": known["commit"] or "unknown", "processor": processor}


def limit_threads(threads: int) -> None:
    """Limit the threads of NumPy and PyTorch, whose libraries read these variables when they are loaded."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def in_rounds(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every step once per round, alternating, so that a slower machine affects all of them."""
    from reid.progress import track

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name in track([*steps] * rounds, "measuring"):
        start = time.perf_counter()
        steps[name]()
        seconds[name].append(time.perf_counter() - start)
    return seconds


def training_step(layer: nn.Module, maps: Tensor, gradient: Tensor) -> Callable[[], None]:
    """Forward and backward pass of a layer, to its weights and to `maps`, for a given gradient of its output."""

    def step() -> None:
        maps.grad = None
        layer.zero_grad(set_to_none=True)
        layer(maps).backward(gradient)

    return step


def median_ratio(seconds: Sequence[float], floor: Sequence[float]) -> float:
    """Median over rounds of the ratio of a step to the floor in the same round."""
    return statistics.median(step / base for step, base in zip(seconds, floor, strict=True))


def matrix_product(query: np.ndarray, gallery: np.ndarray) -> None:
    """Compute all inner products in float32, a block of queries at a time into one buffer: the floor."""
    import numpy as np

    buffer = np.empty((BLOCK, len(gallery)), dtype=np.float32)
    for start in range(0, len(query), BLOCK):
        rows = query[start : start + BLOCK]
        np.matmul(rows, gallery.T, out=buffer[: len(rows)])


def in_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a fresh process; None if the system killed it, as for too much memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, MemoryError):
            return None


class Peak:
    """Peak memory of this process while the block runs, sampled by another process every few milliseconds.

    start, peak: bytes of anonymous memory, without mapped features and the libraries' code. extra: what the block
    added. NaN if the system has no /proc.
    """

    def __enter__(self) -> Self:
        self.start = self.peak = float("nan")
        self._watcher = None
        if Path("/proc/self/status").exists():
            command = [sys.executable, "-c", _WATCH, str(os.getpid())]
            self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._watcher.stdout is not None
            self.start = float(self._watcher.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self.peak = float(self._watcher.communicate()[0])

    @property
    def extra(self) -> float:
        return self.peak - self.start


# Runs until its input is closed. A thread of this process would have to wait for the interpreter's lock.
_WATCH = """
import select, sys
def held():
    with open(f"/proc/{sys.argv[1]}/status", encoding="ascii") as file:
        return 1024 * int(file.read().split("RssAnon:")[1].split()[0])
peak = held()
print(peak, flush=True)
while not select.select([sys.stdin], [], [], 0.003)[0]:
    peak = max(peak, held())
print(max(peak, held()))
"""
