"""Kill trainings without warning, let each go on to its end, and compare what they leave with one never killed.

PYTHONPATH=tests python tests/fault/kills.py --kills 200 --jobs 2     (what `make fault` runs)

Every training is a fork of this process, which has imported all that they need, so one costs its own work alone. Two
thirds are killed at a random moment, the others just before or after a random operation on a file: between the writing
of a checkpoint and its renaming, between the log and the checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fault.tapping import kill_at

from reid.commands import main_function, parse
from reid.errors.command import run_command
from reid.io.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
OPERATIONS = ("replace", "fsync", "link")
CLOCKS = ("seconds", "images_per_second")
TINY = (
    *("DATASETS.SYNTHETIC.SIZE", "tiny", "MODEL.BACKBONE", "small_convolution", "SOLVER.BATCH_SIZE", "16"),
    *("SOLVER.PRECISION", "float32", "STEP0.EPOCHS", "2", "RRI.MAX_ROUNDS", "1", "RESTRAINT.EPOCHS", "1"),
    *("RELAXATION.EPOCHS", "1", "RRI.LOSS_IMAGES", "32", "MODEL.EIGENLAYER.DIM", "16", "MODEL.DEVICE", "cpu"),
    *("OUTPUT_DIR", "run"),
)
KINDS = {
    "by epoch": (),
    "by time": ("CHECKPOINT.MINUTES", "0.0005"),
    "averaged": (
        *("CHECKPOINT.MINUTES", "0.0002", "SOLVER.EMA", "0.9", "SOLVER.ACCUMULATE", "2", "SOLVER.CLIP", "1.0"),
        *("SAMPLER.NAME", "identity", "LOSS.TRIPLET", "1.0", "LOSS.CENTER", "0.01", "SOLVER.OPTIMIZER", "sgd"),
    ),
    "mined": ("CHECKPOINT.MINUTES", "0.0005", "SAMPLER.NAME", "mined", "LOSS.CONTRASTIVE", "1.0"),
}
Command = Callable[[argparse.Namespace], None]


@dataclasses.dataclass
class Case:
    """One training to be killed: in `folder`, after `seconds`, or at operation `at` of files, before or after it."""

    number: int
    kind: str
    folder: Path
    seconds: float = 0.0
    at: int = 0
    before: bool = False
    again: bool = False

    def __str__(self) -> str:
        moment = f"at operation {self.at}" if self.at else f"after {self.seconds:.2f} s"
        return f"kill {self.number} ({self.kind}, {moment})"


def start(main: Command, case: Case) -> int:
    """Fork a training; returns its process."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        case.folder.mkdir(parents=True, exist_ok=True)
        os.chdir(case.folder)
        output = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Killed before there was a run, it is started again; --resume would say that there is none.
        resume = ["--resume"] if case.again and Path("run", "config.yaml").exists() else []
        config = str(ROOT / "configs" / "demo_synthetic.yaml")
        arguments = parse("train", ["--config-file", config, *resume, *TINY, *KINDS[case.kind]])
        counted = kill_at(0 if case.again else case.at, case.before, [(os, name) for name in OPERATIONS])
        code = run_command(lambda: main(arguments))
        Path("operations.txt").write_text(str(counted()))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def differences(whole: Path, other: Path) -> Iterator[str]:
    """Where a run folder differs from another, in names, log, scores and checkpoints, but for clocks.

    A checkpoint kept as the one before the last is of a moment that the clock decides, so it need only be whole.
    """
    names = {str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file()}
    found = {str(p.relative_to(other)) for p in other.rglob("*") if p.is_file()}
    yield from (f"{name} is there once only" for name in sorted(names ^ found))
    for name in sorted(names & found):
        a, b = whole / name, other / name
        if name == "log.jsonl":
            yield from unlike([json.loads(x) for x in open(a)], [json.loads(x) for x in open(b)], name)  # noqa: SIM115
        elif name.endswith(".json"):
            yield from unlike(json.loads(a.read_text()), json.loads(b.read_text()), name)
        elif name.endswith("_previous.pth"):
            load_checkpoint(b)
        elif name.endswith(".pth"):
            yield from unlike(load_checkpoint(a), load_checkpoint(b), name)
        elif name.endswith(".yaml") and a.read_text() != b.read_text():
            yield name


def unlike(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes():
            yield place
    elif type(a) is not type(b):
        yield place
    elif isinstance(a, dict):
        left_out = (*CLOCKS, "command", "commit", "log_sha256")  # the log holds clocks
        for key in {**a, **b}:
            if key not in left_out:
                yield from unlike(a.get(key), b.get(key), f"{place}/{key}")
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield f"{place}: {len(a)} and {len(b)} entries"
        for number, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from unlike(x, y, f"{place}/{number}")
    elif a != b and not (a != a and b != b):
        yield f"{place}: {a} and {b}"


def run_all(main: Command, cases: list[Case], jobs: int, ended: Callable[[Case, int, float], Case | None]) -> None:
    """Run the cases, `jobs` at once; ended(case, exit code, seconds) may give one that is to be run next."""
    waiting, active = deque(cases), dict[int, tuple[Case, float]]()
    while waiting or active:
        while waiting and len(active) < jobs:
            case = waiting.popleft()
            active[start(main, case)] = case, time.monotonic()
        time.sleep(0.002)
        for process, (case, began) in list(active.items()):
            passed = time.monotonic() - began
            if case.seconds and not case.again and passed >= case.seconds:
                os.kill(process, signal.SIGKILL)
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                del active[process]
                following = ended(case, os.waitstatus_to_exitcode(status), passed)
                if following:
                    waiting.appendleft(following)


class Trial:
    """So many kills, their moments drawn from a seed, and how they ended."""

    def __init__(self, folder: Path, kinds: list[str], seed: int) -> None:
        self.folder, self.kinds, self.random = folder, kinds, random.Random(seed)
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, int] = {}
        self.same, self.faults = 0, list[str]()

    def whole(self) -> list[Case]:
        return [Case(0, kind, self.folder / kind.replace(" ", "_")) for kind in self.kinds]

    def whole_ended(self, case: Case, code: int, seconds: float) -> None:
        if code:
            raise SystemExit(f"the unkilled run ({case.kind}) ended with {code}: {self._told(case)}")
        self.seconds[case.kind] = seconds
        self.operations[case.kind] = int((case.folder / "operations.txt").read_text())
        print(f"{case.kind}: {seconds:.1f} s, {self.operations[case.kind]} operations on files unkilled", flush=True)

    def draw(self, number: int) -> Case:
        kind = self.kinds[number % len(self.kinds)]
        case = Case(number, kind, self.folder / f"kill_{number}")
        if self.random.random() < 1 / 3:
            at = self.random.randint(1, self.operations[kind])
            return dataclasses.replace(case, at=at, before=self.random.random() < 0.5)
        return dataclasses.replace(case, seconds=self.random.uniform(0, self.seconds[kind]))

    def ended(self, case: Case, code: int, seconds: float) -> Case | None:
        if not case.again and code == -signal.SIGKILL:
            return dataclasses.replace(case, again=True)
        if not case.again and code == 0:  # it was through before its moment came
            shutil.rmtree(case.folder)
            return self.draw(case.number)
        found = [f"exit code {code}: {self._told(case)}"]
        if code == 0:
            found = list(differences(self.folder / case.kind.replace(" ", "_") / "run", case.folder / "run"))
        if found:
            self.faults.append(f"{case}, {case.folder}: {'; '.join(found[:5])}")
            print(self.faults[-1], flush=True)
        else:
            self.same += 1
            shutil.rmtree(case.folder)
        if (self.same + len(self.faults)) % 10 == 0:
            print(f"{self.same} of {self.same + len(self.faults)} as if never killed", flush=True)
        return None

    def _told(self, case: Case) -> str:
        lines = (case.folder / "output.txt").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once, a thread each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main = main_function("train")
    main.__globals__["write_report"] = lambda path: path  # after the training, and no part of what is compared
    folder = Path(tempfile.mkdtemp(prefix="kills_"))
    os.environ["REID_CACHE"] = str(folder / "cache")
    began = time.monotonic()
    trial = Trial(folder, arguments.kinds, arguments.seed)
    first, *others = trial.whole()  # the first one alone, for it draws the images
    run_all(main, [first], 1, trial.whole_ended)
    run_all(main, others, arguments.jobs, trial.whole_ended)
    run_all(main, [trial.draw(number) for number in range(arguments.kills)], arguments.jobs, trial.ended)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{trial.same} of {arguments.kills} runs, killed and resumed, ended as if never killed; {minutes:.1f} minutes"
    )
    if trial.faults:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
