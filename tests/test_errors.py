"""Exit codes, the one line of an error, and signals to stop."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reid.errors import Diverged, InputError, Interrupted, StopSignal, run_command, stop_signals


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no such folder"), 2, "error: no such folder\n"),
        (Diverged("loss is nan"), 1, "error: loss is nan\n"),
        (Interrupted("to resume: x"), 130, "to resume: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space", "a.pth"),
            2,
            "error: the disk is full: a.pth; free some space and retry\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            2,
            "error: a: cannot be read or written: Permission denied\n",
        ),
    ],
)
def test_exit_codes(error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error)) == code
    assert capsys.readouterr().err == message


def test_done_is_zero() -> None:
    assert run_command(lambda: None) == 0


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))


def test_a_request_to_stop_is_deferred() -> None:
    stop, after = StopSignal(), False
    with pytest.raises(KeyboardInterrupt), stop.held():
        with stop.held():
            stop.receive(signal.SIGINT, None)
        after = stop.requested  # the inner block does not end it
    assert after
    with pytest.raises(KeyboardInterrupt):
        StopSignal().receive(signal.SIGINT, None)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_the_second_signal_stops_at_once() -> None:
    code = (
        "import os, signal, time; from reid.errors import stop_signals\n"
        "with stop_signals() as stop, stop.held():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.requested, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "True\n")
    assert "press Ctrl-C again" in ended.stderr


def test_a_message_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InputError("a\nb\x1b[2J\ud800 ä " + "x" * 10_000)

    assert run_command(fail) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(r"error: a\nb\x1b[2J\ud800 ä xxx") and printed.count("\n") == 1
    assert len(printed) < 3000 and " ... " in printed
