"""A function or command in a process of its own that begins as a copy of this one, without seconds of imports."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from reid.commands import run


@dataclass
class Forked:
    """A running process. code: its exit code, once it has ended."""

    pid: int
    stdout: TextIO
    stderr: TextIO
    code: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Return the exit code; TimeoutError if it does not end in that time."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise TimeoutError(f"still running after {seconds} s")
            else:
                time.sleep(0.01)
        return self.code

    def close(self) -> None:
        """End the process if it is running."""
        if self.code is None:
            self.send_signal(signal.SIGKILL)
            self.wait(60)
        self.stdout.close()
        self.stderr.close()


def start_command(name: str, *arguments: str, before: Callable[[], object] = lambda: None) -> Forked:
    """Run `svdnet NAME ARGUMENTS`; before: called first in the new process."""

    def call() -> int:
        before()
        return run(name, arguments)

    return start(call)


def start(call: Callable[[], int | None]) -> Forked:
    """Run a function, which returns the exit code, None for 0."""
    pipes = [os.pipe() for _ in range(2)]
    pid = os.fork()
    if pid:
        for _, write in pipes:
            os.close(write)
        return Forked(pid, *(os.fdopen(read) for read, _ in pipes))
    code = 99
    try:
        for number, (_, write) in enumerate(pipes, 1):
            os.dup2(write, number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = call() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
