"""Let single calls to the operating system fail, then see what the command says, what is left, and how it goes on.

PYTHONPATH=tests python tests/fault/injections.py --per 8     (part of `make fault`)

The n-th call of one kind (opening, writing, flushing, renaming, ...) on the files of a command fails with an error
such as a full disk; in half of the trials all later ones fail too. The command must end with one line and code 2, or
give the right result all the same; files that were there must be whole; and the same command again must give the result
of one that never failed. The calls are those of the C library, so SQLite's, FAISS's and PyTorch's own are among them.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fault.scenarios import SCENARIOS, Scenario, damage, differences, leftovers, prepare, results

from reid.commands import main_function, parse
from reid.errors.command import run_command

# In the order of the enumeration in failing_calls.c.
CALLS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.EIO, errno.ENOMEM, errno.ENOSPC),
    "read": (errno.EIO, errno.ENOMEM),
    "write": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.ENOSPC, errno.EIO),
    "unlink": (errno.EIO,),
    "mmap": (errno.ENOMEM,),
    "mkdir": (errno.ENOSPC, errno.EIO),
    "link": (errno.EIO, errno.ENOSPC),
    "stat": (errno.EIO,),
    "list": (errno.EIO, errno.EMFILE),
    "print": (errno.EPIPE, errno.ENOSPC),
}
SECONDS = 120.0  # after which a command hangs
PRELOADED = "FAILING_CALLS"


@dataclass(frozen=True)
class Failure:
    """The call number `n` of a kind fails with `error`; with `always` all later ones too."""

    call: str
    error: int
    n: int
    always: bool

    def __str__(self) -> str:
        since = "from" if self.always else "at"
        return f"{errno.errorcode[self.error]} {since} {self.call} {self.n}"


@dataclass
class Ended:
    """How a command ended. counts: of its calls, by kind; path: of the call that failed, if it came to that."""

    code: int
    out: str
    err: str
    counts: dict[str, int] = field(default_factory=dict)
    path: str = ""

    @property
    def lines(self) -> list[str]:
        """What stderr says, without progress bars and the warnings before."""
        lines = [line for line in re.split(r"[\r\n]+", self.err) if line.strip() and "%|" not in line]
        first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), 0)
        return lines[first:]


def build_library(folder: Path) -> Path:
    """Compile `failing_calls.c`."""
    library = folder / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Runner:
    """Runs commands in forks of this process, which imports what they need."""

    def __init__(self, base: Path, library: Path) -> None:
        self.base, self.notes = base, base.with_name(f"{base.name}_notes")
        self.notes.mkdir()
        self.library = ctypes.CDLL(str(library))
        self.library.fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self.library.calls.restype = ctypes.c_long
        self.library.failed_path.restype = ctypes.c_char_p
        self.tools: dict[str, Callable[[argparse.Namespace], None]] = {}

    def _load_tool(self, name: str) -> None:
        main = main_function(name)
        if name == "train":
            # Drawing it takes longer than the training; the page has a scenario of its own.
            main.__globals__["write_report"] = lambda path: path
        self.tools[name] = main

    def run(self, scenario: Scenario, folder: Path, failure: Failure | None = None) -> Ended:
        """Run a command in a folder, which is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        if scenario.tool not in self.tools:
            self._load_tool(scenario.tool)
        process = os.fork()
        if not process:
            self._run(scenario, folder, failure)
        began = time.monotonic()
        while not (done := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() - began > SECONDS:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        out, err = ((self.notes / name).read_text(errors="replace") for name in ("out", "err"))
        ended = Ended(os.waitstatus_to_exitcode(done[1]), out, err)
        if (self.notes / "calls").exists():
            *counts, ended.path = (self.notes / "calls").read_text().split("\n")
            ended.counts = dict(zip(CALLS, map(int, counts), strict=True))
        return ended

    def _run(self, scenario: Scenario, folder: Path, failure: Failure | None) -> None:
        code = 99
        try:
            (self.notes / "calls").unlink(missing_ok=True)
            os.chdir(folder)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(self.notes / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
            os.environ["REID_CACHE"] = scenario.cache or str(self.base / "data")
            arguments = parse(scenario.tool, scenario.command(folder))
            if scenario.before:
                scenario.before()
            wanted = (-1, 0, 0, 0)
            if failure:
                wanted = (list(CALLS).index(failure.call), failure.n, failure.error, int(failure.always))
            self.library.fail(str(self.base).encode(), *wanted)
            code = run_command(lambda: self.tools[scenario.tool](arguments))
            sys.stdout.flush()
        except BaseException:
            sys.stderr.write(traceback.format_exc())
            code = 1
        finally:
            counts = [str(self.library.calls(kind)) for kind in range(len(CALLS))]
            path = os.fsdecode(self.library.failed_path())
            self.library.fail(b"", -1, 0, 0, 0)
            (self.notes / "calls").write_text("\n".join([*counts, path]))
            (self.notes / "modules").write_text("\n".join(sys.modules))
            sys.stderr.flush()
            os._exit(code)

    def import_modules(self) -> None:
        """Import what the last command imported, so that the next does not have to."""
        for name in (self.notes / "modules").read_text().splitlines():
            if name not in sys.modules:
                try:
                    importlib.import_module(name)
                except Exception:  # modules of one fork only
                    continue

    def must_run(self, scenario: Scenario, target: Path) -> None:
        """Run a command that must succeed in `trial`, which is what is in `target` and becomes it afterwards."""
        if target.exists():
            target.rename(self.base / "trial")
        ended = self.run(scenario, self.base / "trial")
        if ended.code:
            raise SystemExit(f"{scenario.name} fails without an injected error: {ended.out[-500:]}{ended.err[-3000:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.base / "trial").rename(target)
        self.import_modules()


class Trials:
    """The injections into one command, and what was wrong after them."""

    def __init__(self, runner: Runner, scenario: Scenario) -> None:
        self.runner, self.scenario = runner, scenario
        self.trial = runner.base / "trial"
        self.start = runner.base / "start" / scenario.start if scenario.start else None
        self.tried, self.hit, self.tracebacks, self.lost = (Counter[tuple[str, int]]() for _ in range(4))
        self.messages = Counter[str]()
        self._reset()
        self.before = results(self.trial)
        self.counts = self._complete()
        self.complete = results(self.trial)
        self._reset()
        self._complete()
        again = results(self.trial)
        # Pages and exports that hold a time or a name differ each time; that they are there is compared.
        self.changing = {name for name in self.complete if [*differences(pick(self.complete, name), pick(again, name))]}
        self.shared = self._listing()

    def _reset(self) -> None:
        shutil.rmtree(self.trial, ignore_errors=True)
        if self.start:
            shutil.copytree(self.start, self.trial)
        else:
            self.trial.mkdir()

    def _complete(self) -> dict[str, int]:
        ended = self.runner.run(self.scenario, self.trial)
        if ended.code:
            raise SystemExit(f"{self.scenario.name} fails without an injected error: {ended.err[-3000:]}")
        self.runner.import_modules()
        return ended.counts

    def _listing(self) -> list[tuple[str, int, int]]:
        """The files that the command only reads."""
        paths = [path for path in self.runner.base.rglob("*") if self.trial not in path.parents and path.is_file()]
        return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)

    def plan(self, per: int, random: random.Random) -> Iterator[Failure]:
        """Up to `per` failures for each kind of call and error: the first calls, and some of the later ones."""
        for call, errors in CALLS.items():
            count = self.counts[call]
            for error in errors:
                first = range(1, min(count, -(-per // 2)) + 1)
                later = range(len(first) + 1, count + 1)
                for n in (*first, *random.sample(later, min(len(later), per - len(first)))):
                    yield Failure(call, error, n, random.random() < 0.5)

    def inject(self, failure: Failure) -> list[str]:
        """Run the command with a failure and then without; returns what was wrong."""
        self._reset()
        key = failure.call, failure.error
        ended = self.runner.run(self.scenario, self.trial, failure)
        self.tried[key] += 1
        self.hit[key] += bool(ended.path)
        unclear, lost = self._unclear(ended, failure), list(self._lost(ended))
        if ended.code:
            again = self.runner.run(self.scenario, self.trial)
            # What failed after the results were written may have been said to exist by now.
            if again.code and "already exists" not in again.err:
                lost.append(f"then it ends with {again.code}: {' | '.join(again.err.strip().splitlines()[-6:])}")
            lost += (f"then {told}" for told in (*self._unlike_complete(), *leftovers(self.trial)))
        self.tracebacks[key] += bool(unclear)
        self.lost[key] += bool(lost)
        return [f"{told} ({self._shorter(ended.path)})" for told in unclear + lost[:4]]

    def _unclear(self, ended: Ended, failure: Failure) -> list[str]:
        if ended.code == 0 or (ended.code == 141 and failure.call == "print" and not ended.lines):
            return []
        if ended.code != 2 or len(ended.lines) != 1 or "Traceback" in ended.err:
            return [f"code {ended.code}: {' | '.join(ended.err.strip().splitlines()[-8:])}"]
        self.messages[f"{failure.call} {errno.errorcode[failure.error]}: {self._shorter(ended.lines[0])}"] += 1
        return []

    def _lost(self, ended: Ended) -> Iterator[str]:
        try:
            after = results(self.trial)
        except Exception as error:  # whatever the readers of damaged files raise
            yield f"a damaged file: {error!r}"
            return
        steady = {name: value for name, value in after.items() if name not in self.changing}
        yield from damage(self.before, {**steady, **{name: None for name in self.changing & {*after}}}, self.complete)
        if ended.code == 0:
            yield from (f"code 0, and {told}" for told in self._unlike_complete())
        if self._listing() != self.shared:
            yield "a file that it only reads has changed"
            self.shared = self._listing()

    def _unlike_complete(self) -> Iterator[str]:
        try:
            found = results(self.trial)
        except Exception as error:  # whatever the readers of damaged files raise
            yield f"a damaged file: {error!r}"
            return
        steady = [{k: None if k in self.changing else v for k, v in x.items()} for x in (self.complete, found)]
        yield from differences(*steady)

    def _shorter(self, text: str) -> str:
        return text.replace(str(self.runner.base), "BASE")


def pick(found: dict[str, Any], name: str) -> dict[str, Any]:
    """One entry of results."""
    return {name: found[name]} if name in found else {}


def table(trials: Sequence[Trials]) -> str:
    """Injections that took place, unclear ends and losses, by command and call."""
    lines = ["command      call    error: injected/tracebacks/lost"]
    for trial in trials:
        for call, errors in CALLS.items():
            cells = [
                f"{errno.errorcode[error]} {trial.hit[key]}/{trial.tracebacks[key]}/{trial.lost[key]}"
                for error in errors
                if trial.tried[key := (call, error)]
            ]
            if cells:
                lines.append(f"{trial.scenario.name:<12} {call:<7} {'  '.join(cells)}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--per", type=int, default=8, help="injections per command, kind of call and error")
    parser.add_argument("--seed", type=int, default=0, help="of the calls that fail")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--commands", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS), help="default: all")
    parser.add_argument("--messages", action="store_true", help="also list what the commands said")
    arguments = parser.parse_args()
    if PRELOADED not in os.environ:
        with tempfile.TemporaryDirectory(prefix="failing_calls_") as folder:
            library = str(build_library(Path(folder)))
            environment = {**os.environ, "LD_PRELOAD": library, PRELOADED: library, "OMP_NUM_THREADS": "1"}
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    torch.set_num_threads(1)
    base = Path(tempfile.mkdtemp(prefix="injections_")).resolve()
    runner = Runner(base, Path(os.environ[PRELOADED]))
    prepare(base, arguments.commands, runner.must_run)
    done: list[Trials] = []
    for scenario in SCENARIOS:
        if scenario.name not in arguments.commands:
            continue
        began = time.monotonic()
        trials = Trials(runner, scenario)
        done.append(trials)
        for failure in trials.plan(arguments.per, random.Random(arguments.seed)):
            if failure.call in arguments.calls and (wrong := trials.inject(failure)):
                print(f"{scenario.name}, {failure}: " + "; ".join(wrong), flush=True)
        seconds = time.monotonic() - began
        print(f"{scenario.name}: {trials.hit.total()} errors in {seconds:.0f} s, {trials.counts}", flush=True)
        if trials.changing:
            print(f"{scenario.name}: compared by name alone: {', '.join(sorted(trials.changing))}", flush=True)
    if arguments.messages:
        print(*(f"{count} x {text}" for trials in done for text, count in sorted(trials.messages.items())), sep="\n")
    print(table(done))
    hit, tracebacks, lost = (
        sum(getattr(trials, name).total() for trials in done) for name in ("hit", "tracebacks", "lost")
    )
    print(f"{hit} injected errors: {tracebacks} tracebacks or unclear messages, {lost} with something lost or wrong")
    shutil.rmtree(base)
    shutil.rmtree(runner.notes)
    return 1 if tracebacks or lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
