"""Training speed beside other busy processes on the same cores, against the fair share of the machine.

    python benchmarks/busy.py [--cores 2] [--busy 0 1 2 4] [--rounds 3] [--torchreid CLONE] [--plot FILE]

Every row is `svdnet train` on the images of the demo (OSNet-x0.25, 128 x 64, batch 32), ended after `--epochs` epochs,
in a process of its own that takes turns with the others: with the threads that it chooses, and, on the idle machine,
with one thread and with all threads that spin as long as OpenMP's default. All of them and the busy processes run on
the first `--cores` cores. The fair share beside n processes is that of one of n + 1 on these cores, in cores times the
rate of one thread, and at most the best idle rate. torchreid's trainer runs for `--seconds` with its own settings.
Takes about eight minutes on two cores that are otherwise idle; a training of more than `--limit` seconds is given up.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import set_start_method
from pathlib import Path
from typing import Any

from measuring import benchmark_parser, in_process, show

from reid.errors import InputError
from reid.errors.command import run_command
from reid.threads import COUNT_VARIABLES, WAIT_VARIABLES

BATCH, SIZE = 32, (128, 64)
CHOSEN, ONE, ALL = "threads chosen", "one thread", "all threads, default spin"
Rates = dict[tuple[str, int], list[float]]


class _Done(Exception):
    """Ends torchreid's epoch."""


def main() -> None:
    parser = benchmark_parser(__doc__, cores=2, rounds=3, epochs=1)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 4], metavar="N")
    parser.add_argument("--limit", type=float, default=180.0)
    parser.add_argument("--torchreid", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    os.sched_setaffinity(0, cores)  # of all processes that this one starts
    variables = {
        CHOSEN: {},
        ONE: {"OMP_NUM_THREADS": "1"},
        ALL: {"OMP_NUM_THREADS": str(len(cores)), "GOMP_SPINCOUNT": "300000"},
    }
    found: Rates = {}
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, Callable[[], tuple[float, int]]] = {
            name: functools.partial(_our_rate, Path(folder), given, arguments.epochs, arguments.limit)
            for name, given in variables.items()
        }
        if arguments.torchreid:
            files = _images(Path(folder))
            settings = (arguments.torchreid, files, arguments.seconds)
            rows["torchreid"] = lambda: (in_process(torchreid_rate, *settings), len(cores))
        rows[ONE]()  # draws and decodes the images
        print(f"{len(cores)} cores, {arguments.rounds} rounds; images/s and threads of each run", flush=True)
        for busy in sorted({0, *arguments.busy}):
            for _ in range(arguments.rounds):
                for name, rate in rows.items():
                    if busy and name in (ONE, ALL):
                        continue
                    with _busy_processes(busy):
                        images, threads = rate()
                    found.setdefault((name, busy), []).append(images)
                    print(f"{name}, beside {busy}: {images:.1f}, {threads} threads", flush=True)
    table = _table(found, len(cores), sorted({0, *arguments.busy}))
    one, spinning = (statistics.median(found[name, 0]) for name in (ONE, ALL))
    about = (
        f"{len(cores)} cores, medians of {arguments.rounds} rounds; idle: one thread {one:.0f} images/s, all threads "
        f"with the default spin {spinning:.0f}"
    )
    show(_rows(table, found), "busy", about, arguments.save)
    if arguments.plot:
        _plot(table, arguments.plot)


def _our_rate(folder: Path, variables: Mapping[str, str], epochs: int, limit: float) -> tuple[float, int]:
    """Images per second of the first epochs of a training, which ends after them, and its threads; 0 if given up."""
    plain = {k: v for k, v in os.environ.items() if k not in (*COUNT_VARIABLES, *WAIT_VARIABLES)}
    with tempfile.TemporaryDirectory(dir=folder) as run:
        log, errors = Path(run, "run", "log.jsonl"), Path(run, "errors.txt")
        command = [sys.executable, "-m", "reid", "train", "--config-file", "demo_synthetic"]
        command += ["DATASETS.ROOT", str(folder / "data"), "OUTPUT_DIR", str(log.parent), "MODEL.DEVICE", "cpu"]
        with open(errors, "wb") as stream:
            process = subprocess.Popen(command, env={**plain, **variables}, stdout=stream, stderr=stream)
            deadline = time.monotonic() + limit
            try:
                while len(_entries(log, "epoch")) < epochs and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
            finally:
                process.kill()
                process.wait()
            given_up = time.monotonic() >= deadline
        trained = _entries(log, "epoch")
        if given_up and len(trained) < epochs:
            return 0.0, 0
        if len(trained) < epochs:
            raise InputError(f"the training failed: {errors.read_text(errors='replace').strip()[-500:]}")
        threads = _entries(log, "start")[0]["machine"]["threads"]
        return statistics.mean(entry["images_per_second"] for entry in trained[:epochs]), threads


def _entries(log: Path, kind: str) -> list[dict[str, Any]]:
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


@contextlib.contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _images(folder: Path) -> list[str]:
    environment = dict(os.environ)
    from input import jpegs  # limits the threads of new processes

    os.environ.clear()
    os.environ.update(environment)
    (folder / "jpegs").mkdir()
    return jpegs(None, 40 * BATCH, folder / "jpegs")


def torchreid_rate(clone: Path, files: list[str], seconds: float) -> float:
    """Images per second of torchreid's trainer after its first step."""
    from training import torchreid_epoch

    set_start_method("fork", force=True)  # for torchreid's workers, as in a program of its own
    epoch = torchreid_epoch(clone, files, SIZE, BATCH)
    engine = sys.modules["torchreid"].engine.ImageSoftmaxEngine
    step, ends = engine.forward_backward, list[float]()

    def counted(*given: Any) -> Any:
        result = step(*given)
        ends.append(time.perf_counter())
        if len(ends) > 2 and ends[-1] > ends[0] + seconds:
            raise _Done
        return result

    engine.forward_backward = counted
    with contextlib.suppress(_Done):
        while True:
            epoch()
    return BATCH * (len(ends) - 1) / (ends[-1] - ends[0])


def _table(found: Rates, cores: int, counts: list[int]) -> list[tuple[int, float, float, float | None]]:
    """Busy processes, our rate, the fair share and torchreid's rate."""
    rate = {key: statistics.median(values) for key, values in found.items()}
    if not rate[ONE, 0]:
        raise InputError("one thread on the idle machine was given up; raise --limit")
    best = max(rate[name, 0] for name in (CHOSEN, ONE, ALL))
    return [
        (n, rate[CHOSEN, n], min(best, rate[ONE, 0] * cores / (n + 1)) if n else best, rate.get(("torchreid", n)))
        for n in counts
    ]


def _rows(table: list[tuple[int, float, float, float | None]], found: Rates) -> Iterator[dict[str, str]]:
    one = statistics.median(found[ONE, 0])
    for count, ours, fair, theirs in table:
        yield {
            "busy processes": str(count),
            "images/s": f"{ours:.0f}",
            "/ one thread, idle": f"{ours / one:.2f}",
            "/ fair share": f"{ours / fair:.2f}",
            "torchreid": "" if theirs is None else f"{theirs:.1f}",
        }


def _plot(table: list[tuple[int, float, float, float | None]], path: Path) -> None:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(6, 4))).subplots()
    counts, ours, fair, theirs = zip(*table, strict=True)
    axes.plot(counts, ours, "o-", label="threads chosen")
    axes.plot(counts, fair, "k--", label="fair share")
    if None not in theirs:
        axes.plot(counts, theirs, "s-", label="torchreid")
    axes.set(xlabel="busy processes on the same cores", ylabel="images/s", xticks=counts, ylim=(0, None))
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
