from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from reid.errors import Diverged, InputError, Interrupted, run_command


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no such folder"), 2, "error: no such folder\n"),
        (Diverged("loss is nan"), 1, "error: loss is nan\n"),
        (Interrupted("to go on: x"), 130, "to go on: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space", "a.pth"),
            2,
            "error: the disk is full: a.pth; free some space and go on\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            2,
            "error: no right to read or write a: Permission denied\n",
        ),
    ],
)
def test_exit_codes(error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error)) == code
    assert capsys.readouterr().err == message


def test_done_is_zero() -> None:
    assert run_command(lambda: None) == 0


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))
