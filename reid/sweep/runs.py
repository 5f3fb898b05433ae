"""The runs of a sweep: where each lives, whether it has ended, and the row it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import parse_json
from reid.sweep.grid import Setting
from reid.sweep.table import check_row

# What a file of other content than a run's comes to, which `_row` finds out by reading it.
TRAIN = Path(__file__).parents[2] / "tools" / "train_svdnet.py"


@dataclass(frozen=True)
class SweepRun:
    """One training. name: of the row it belongs to, the same for every seed. config: the file. folder: OUTPUT_DIR.

    control: whether the control belongs to it too.
    """

    name: str
    config: Path
    setting: Setting
    seed: int
    folder: Path
    control: bool

    @property
    def _scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def log(self) -> Path:
        """What the training printed."""
        return self.folder.with_name(f"{self.folder.name}.txt")

    def finished(self) -> bool:
        """Whether it has ended, its control too where it has one. Raises InputError where its scores are damaged."""
        if not self._scores.exists():
            return False
        with _reading(self._scores):
            summary = parse_json(self._scores.read_text(encoding="utf-8"))
            done = summary["stopped"] is not None
            if not done or not self.control:
                return done
            ends = {
                run: {(r["stage"], r["round"]) for r in summary["rows"] if r["run"] == run}
                for run in ("rri", "control")
            }
            return ends["rri"] - {("step0", 0)} == ends["control"]

    def row(self) -> dict[str, Any]:
        """What the run came to; rank-1 and mAP as fractions, of the feature that its configuration reports.

        epochs, seconds and images_per_second count the training of the run itself, not that of its control. Raises
        InputError where its files are damaged.
        """
        log = self.folder / "log.jsonl"
        with _reading(log):
            start = parse_json(log.read_text(encoding="utf-8").splitlines()[0])
            origin = {**{key: start["machine"][key] for key in ("threads", "processor")}, "commit": start["commit"]}
        with _reading(self._scores):
            row = {**self._row(parse_json(self._scores.read_text(encoding="utf-8"))), **origin}
            check_row(row)
        return row

    def _row(self, summary: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in summary["rows"] if row["run"] == "rri"]
        trained = [row for row in rows if row["epochs"]]
        final, control = summary["final"], summary["control_final"] if self.control else None
        seconds = sum(row["seconds"] for row in trained)
        images = sum(row["seconds"] * row["images_per_second"] for row in trained)
        return {
            "name": self.name,
            "config": self.config.name,
            "setting": dict(self.setting),
            "seed": self.seed,
            "dataset": summary["dataset"],
            "epochs": sum(row["epochs"] for row in rows),
            "rank1": final["rank1"],
            "mAP": final["mAP"],
            "control_rank1": control and control["rank1"],
            "control_mAP": control and control["mAP"],
            "correlation": rows[-1]["correlation"],
            "correlation_step0": rows[0]["correlation"],
            "train_loss": rows[-1]["train_loss"],
            "feature": final["feature"],
            "normalized": final["normalized"],
            "flip": final["flip"],
            "seconds": round(seconds, 1),
            "images_per_second": round(images / seconds, 1),
        }


def check_apart(runs: Sequence[SweepRun]) -> None:
    """Raise InputError where two runs would share a folder: two files of one name, or keys that end alike."""
    owners: dict[Path, SweepRun] = {}
    for run in runs:
        other = owners.setdefault(run.folder, run)
        if other is not run:
            settings = (" ".join(f"{key}={value}" for key, value in one.setting) for one in (other, run))
            one, two = (f"{r.config} {text}".strip() for r, text in zip((other, run), settings, strict=True))
            raise InputError(f"{one} and {two} would share the folder {run.folder}: give each an --output of its own")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        what = f"{path}: cannot be read ({error!r})"
        raise InputError(f"{what}; move the folder away to run it anew") from None


def run_all(
    runs: Sequence[SweepRun], *, jobs: int, ended: Callable[[SweepRun, str | None], None], train: Path = TRAIN
) -> None:
    """Carry out the runs, `jobs` at a time, each in a process of its own with its share of the cores.

    A run that was begun goes on. ended(run, mistake): called when one has, with the last line it printed where it
    failed, or None. Interrupted, the trainings are told so, each saves, and KeyboardInterrupt is raised again.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes: dict[SweepRun, subprocess.Popen[bytes]] = {}
    stopping = False

    def carry_out(run: SweepRun) -> str | None:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        overrides = [text for pair in run.setting for text in pair]
        resume = ["--resume"] if (run.folder / "config.yaml").exists() else []
        command = [sys.executable, str(train), "--config-file", str(run.config), *resume, *overrides]
        command += ["SEED", str(run.seed), "OUTPUT_DIR", str(run.folder)]
        with open(run.log, "ab") as log:
            if stopping:
                return "not begun"
            # Apart from this process's group: Ctrl-C reaches this process alone, which passes it on once.
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            processes[run] = process
            code = process.wait()
        return None if code == 0 else _last_line(run.log) or f"exit code {code}"

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(carry_out, run): run for run in runs}
        try:
            for future in as_completed(futures):
                ended(futures[future], future.result())
        except BaseException:
            stopping = True
            pool.shutdown(wait=False, cancel_futures=True)
            _stop([process for process in processes.values() if process.poll() is None])
            raise


def _stop(processes: Sequence[subprocess.Popen[bytes]], patience: float = 60.0) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    until = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _last_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
