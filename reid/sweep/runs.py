"""The runs of a sweep: their folders, their execution in parallel, and their results."""

from __future__ import annotations

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

import numpy as np

from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint
from reid.io.json_yaml import parse_json
from reid.io.reading import read_file
from reid.ranking.bootstrap import paired_bootstrap_of_runs
from reid.records import PER_QUERY
from reid.sweep.grid import Setting
from reid.sweep.table import check_row
from reid.threads import environment_for

TRAIN = ("-m", "reid", "train")


@dataclass(frozen=True)
class SweepRun:
    """One training.

    Attributes:
        name: Name of its setting, the same for every seed.
        config: YAML file that the setting overrides.
        setting: Overrides of the configuration.
        seed: Value of the key SEED.
        folder: Value of OUTPUT_DIR.
        control: Whether the control is trained too.
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
        """The file with the output of the training."""
        return self.folder.with_name(f"{self.folder.name}.txt")

    def finished(self) -> bool:
        """Check whether the run has ended, including its control if there is one.

        Returns:
            Whether it has ended.

        Raises:
            InputError: If `scores.json` is damaged.
        """
        if not self._scores.exists():
            return False
        with _reading(self._scores):
            summary = parse_json(read_file(self._scores).decode())
            stopped = summary["stopped"] is not None
            if not stopped or not self.control:
                return stopped
            stages = {
                run: {(r["stage"], r["round"]) for r in summary["rows"] if r["run"] == run}
                for run in ("rri", "control")
            }
            # What ends a run is the flip test of its last stage.
            flips = {score["flip"] for score in summary["rows"][-1]["scores"]}
            return stages["rri"] - {("step0", 0)} == stages["control"] and flips == {False, True}

    def row(self) -> dict[str, Any]:
        """Collect the results of a finished run.

        Returns:
            A row of the sweep. Scores are fractions of the feature that the configuration reports. "epochs", "seconds"
            and "images_per_second" are those of the run without its control, 0 where nothing was trained. "commit" and
            "config_digest" tell which code and settings were measured, "processor" what trained: the GPU, if there was
            one.

        Raises:
            InputError: If a file of the run is damaged.
        """
        log = self.folder / "log.jsonl"
        with _reading(log):
            start = parse_json(read_file(log).decode().splitlines()[0])
            machine = start["machine"]
            on_gpu = str(machine.get("device")).startswith("cuda")
            origin = {"threads": machine["threads"], "processor": machine["gpu" if on_gpu else "processor"]}
            origin["commit"] = start["commit"]
            origin["config_digest"] = start.get("config_digest")  # None for a run of an earlier version
        with _reading(self._scores):
            row = {**self._row(parse_json(read_file(self._scores).decode())), **origin}
            check_row(row)
        return row

    def query_scores(self, run: str = "rri") -> tuple[np.ndarray, np.ndarray] | None:
        """Read the scores of every query at the end of the run.

        Args:
            run: "rri", or "control" for those of its control.

        Returns:
            (Q, 3) float64 and (Q,) int64, "per_query" and "identities" of `reid.records.Scores`; None if the
            checkpoint is gone or lacks them, as one of an earlier version does.

        Raises:
            InputError: If the checkpoint is damaged.
        """
        path = self.folder / "checkpoints" / f"{run}_last.pth"
        if not path.exists():
            return None
        content = load_checkpoint(path)
        with _reading(path):
            for score in content["rows"][-1]["scores"]:
                if score.get("per_query") is not None and score.get("identities") is not None:
                    return score["per_query"].numpy(), score["identities"].numpy()
        return None

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
            "images_per_second": round(images / seconds, 1) if seconds else 0.0,
        }


def gain_over_controls(runs: Sequence[SweepRun]) -> dict[str, list[float]] | None:
    """Compute how much the runs of a setting score above their controls, with an interval over seeds and persons.

    Args:
        runs: Finished runs of one setting, one of each seed.

    Returns:
        "rank1", "mAP" and "mINP", each [gain, low, high], a fraction with its 95 % interval by
        `reid.ranking.bootstrap.paired_bootstrap_of_runs`; None for a single run, whose interval would not cover the
        seed, if a run has no control, if per-query scores were not kept, or if the seeds were tested on different
        queries.

    Raises:
        InputError: If a checkpoint is damaged.
    """
    if len(runs) < 2 or not all(run.control for run in runs):
        return None
    found = [run.query_scores(which) for run in runs for which in ("rri", "control")]
    known = [scores for scores in found if scores is not None]
    if len(known) < len(found) or len({identities.tobytes() for _, identities in known}) > 1:
        return None
    values = np.stack([per_query for per_query, _ in known])
    ends = paired_bootstrap_of_runs(values[::2], values[1::2], known[0][1])
    return dict(zip(PER_QUERY, ends.tolist(), strict=True))


def check_apart(runs: Sequence[SweepRun]) -> None:
    """Check that no two runs share a folder, as with two files of one name or two keys with the same last part.

    Args:
        runs: All runs of the sweep.

    Raises:
        InputError: If two runs share a folder.
    """
    owners: dict[Path, SweepRun] = {}
    for run in runs:
        other = owners.setdefault(run.folder, run)
        if other is not run:
            settings = (" ".join(f"{key}={value}" for key, value in one.setting) for one in (other, run))
            one, two = (f"{r.config} {text}".strip() for r, text in zip((other, run), settings, strict=True))
            raise InputError(f"{one} and {two} would share the folder {run.folder}; use a separate --output for each")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise InputError(f"{path}: cannot be read ({error!r}); move the folder away to repeat the run") from None


def run_all(
    runs: Sequence[SweepRun], *, jobs: int, ended: Callable[[SweepRun, str | None], None], train: Sequence[str] = TRAIN
) -> None:
    """Execute runs in parallel processes, which share the cores. A run that was interrupted before is resumed.

    Where the user has requested a number of threads, every run uses it.

    On KeyboardInterrupt the trainings are interrupted too, so that they save their state, and it is raised again.

    Args:
        runs: Runs to execute, in this order.
        jobs: Number of trainings at a time.
        ended: Called as `ended(run, error)` after each run, where `error` is None or the last line of a failed run.
        train: Words after "python" that start a training.
    """
    environment = environment_for(jobs)
    processes: dict[SweepRun, subprocess.Popen[bytes]] = {}
    stopping = False

    def execute(run: SweepRun) -> str | None:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        overrides = [text for pair in run.setting for text in pair]
        resume = ["--resume"] if (run.folder / "config.yaml").exists() else []
        command = [sys.executable, *train, "--config-file", str(run.config), *resume, *overrides]
        command += ["SEED", str(run.seed), "OUTPUT_DIR", str(run.folder)]
        with open(run.log, "ab") as log:
            if stopping:
                return "not started"
            # In a separate session, so that Ctrl-C reaches only this process, which forwards it once.
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            processes[run] = process
            code = process.wait()
        return None if code == 0 else _last_line(run.log) or f"exit code {code}"

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(execute, run): run for run in runs}
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
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _last_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
