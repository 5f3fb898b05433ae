"""How commands end: exit codes, one line on stderr, and standard streams that are closed, full or without a reader."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from reid.errors import Diverged, InputError, Interrupted
from reid.errors.command import run_command

ROOT = Path(__file__).parents[2]
TOOLS = sorted((ROOT / "tools").glob("*.py"))
# `print` is buffered, as in a terminal's pipe, whatever the tests run in.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


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
        (OSError(errno.ENETUNREACH, "Network is unreachable"), 2, "error: Network is unreachable\n"),
        (OSError(errno.EBUSY, "Device or resource busy", "a"), 2, "error: a: Device or resource busy\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2, "error: Broken pipe\n"),  # stdout is whole
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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried ...\nC++"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_a_lack_of_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: not enough memory: ") and printed.count("\n") == 1 and "C++" not in printed


def test_other_errors_of_libraries_keep_their_traceback() -> None:
    for error in (RuntimeError("shape mismatch"), ImportError("No module named x"), OSError("not an image")):
        with pytest.raises(type(error)):
            run_command(raising(error))


def test_every_tool_goes_through_it_from_its_first_import_on() -> None:
    assert len(TOOLS) > 10
    for path in TOOLS:
        imports = re.findall(r"^(?:from|import) .*", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert imports == ["from reid.commands import run"], path
    imports = re.findall(r"^(?:from|import) .*", (ROOT / "reid" / "__main__.py").read_text("utf-8"), re.MULTILINE)
    assert imports == ["from reid.commands import main"]
    package = (ROOT / "reid" / "commands" / "__init__.py").read_text(encoding="utf-8")
    first = re.findall(r"^(?:from|import) .*", package, re.MULTILINE)[1]
    assert first.startswith("from reid.errors.command import run_command")


def shell(command: str, code: str) -> tuple[int, str, str]:
    """Run Python code with a shell command that redirects; the code goes through `run_command`."""
    program = (
        f"from reid.errors.command import run_command\ndef main():\n    {code}\nraise SystemExit(run_command(main))"
    )
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, program],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_streams_in_a_shell() -> None:
    lines = "for i in range(100_000): print(i)"
    assert shell('"$0" -c "$1" | head -1', lines) == (141, "0\n", "")
    assert shell(
        '"$0" -c "$1" 2>&1 >&- | head -1', "import sys; [print(i, file=sys.stderr) for i in range(99_999)]"
    ) == (
        141,
        "0\n",
        "",
    )
    assert shell('"$0" -c "$1" >&-', lines) == (0, "", "")
    assert shell('"$0" -c "$1" >&- 2>&-', "raise ValueError") == (1, "", "")
    if Path("/dev/full").exists():
        full = "error: the disk is full: while writing; free some space and retry\n"
        assert shell('"$0" -c "$1" >/dev/full', lines) == (2, "", full)
        assert shell('"$0" -c "$1" >/dev/full', "print(1)") == (2, "", full)
        assert shell('"$0" -c "$1" 2>/dev/full', "from reid.errors import InputError; raise InputError('x')")[0] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    # A library in C that prints would otherwise write into the file.
    path = tmp_path / "model"
    code = f"file = open({str(path)!r}, 'wb'); file.write(b'content'); import os; os.write(1, b'printed'); file.close()"
    assert shell('"$0" -c "$1" <&- >&- 2>&-', code)[0] == 0
    assert path.read_bytes() == b"content"


def test_names_that_stdout_cannot_encode() -> None:
    code, out, err = shell('PYTHONIOENCODING=ascii "$0" -c "$1"', r"print('caf\xe9 \udcff')")
    assert (code, out, err) == (0, "caf\\xe9 \\udcff\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_signal_or_lack_of_memory_during_the_imports() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            # Processes in the background of a shell inherit that SIGINT is ignored.
            "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from reid.errors.command import run_command; print(1, flush=True); time.sleep(60)",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    if sys.platform == "linux":
        limited = '(ulimit -v 400000; exec "$0" tools/search.py crop.jpg)'
        ended = subprocess.run(["bash", "-c", limited, sys.executable], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 2 and ended.stderr.startswith("error: not enough memory: "), ended.stderr
        assert ended.stderr.count("\n") == 1


def test_warnings_of_the_package_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        for place in (ROOT / "reid" / "evaluation" / "retrieval.py", "/elsewhere/torch/nn.py"):
            print(warnings.formatwarning("3 queries are left out", UserWarning, str(place), 7), end="")

    before = warnings.formatwarning
    assert run_command(main) == 0 and warnings.formatwarning is before
    own, other = capsys.readouterr().out.split("\n", maxsplit=1)
    assert own == "warning: 3 queries are left out" and "nn.py:7: UserWarning: 3 queries" in other
