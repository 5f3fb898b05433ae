"""How a command ends: an exit code, and at most one line on stderr.

Every tool imports this module first. NumPy and PyTorch take seconds to import, so the import prepares the process:
from then on, Ctrl-C and a lack of memory end in one line too, and output goes somewhere even if the streams are closed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO

from reid.errors import FULL_DISK, Diverged, InputError, Interrupted, one_line

_PACKAGE = Path(__file__).parents[1]
BROKEN_PIPE = 141  # what a shell shows for a program that SIGPIPE ended
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_OTHER_PATH = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP)
# Libraries in C report a lack of memory as errors of many types, known only by their texts.
_NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc", "bad allocation"),
    *("failed to map segment", "can't start new thread", "not enough memory"),
)


def run_command(main: Callable[[], None]) -> int:
    """Call the main function of a command and turn errors into exit codes and one line on stderr.

    Args:
        main: Function without arguments.

    Returns:
        0 for success; 2 for an error that the user can fix (`InputError`, what the operating system reports about files
        and sockets, a full disk also where stdout is one, a lack of memory); 1 for a diverged training; 130 for an
        interrupted one; 141, without a line, if the reader of stdout is gone, as with `| head`. Any other exception is
        a bug and is not caught.
    """
    end = None
    try:
        with _warnings_in_one_line():
            main()
    except SystemExit as ended:
        if failed := _flush_stdout():
            raise SystemExit(ended.code or failed) from None
        raise
    except BaseException as error:
        end = _end(error)
        if end is None:
            raise
    # After the error is gone, and with it the progress bars of its frames, which clear their lines.
    code = _print_end(*end) if end else 0
    return code or _flush_stdout()


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings of this package without the line of source that gave them."""
    plain = warnings.formatwarning

    def format_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(_PACKAGE):
            return f"warning: {message}\n"
        return plain(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = plain


def _end(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and message for an error, or None for a bug."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return 130, str(error) or "interrupted"
    if isinstance(error, InputError | Diverged):
        return 2 if isinstance(error, InputError) else 1, f"error: {error}"
    lacks_memory = isinstance(error, RuntimeError | ImportError | SystemError | OSError) and any(
        mark in str(error).lower() for mark in _NO_MEMORY
    )
    if isinstance(error, MemoryError) or lacks_memory:
        first = str(error).strip().partition("\n")[0]
        reason = f"{first}; " if first else ""
        advice = "close other programs or raise the limit, or use smaller batches or images and fewer workers"
        return 2, f"error: not enough memory: {reason}{advice}"
    if isinstance(error, BrokenPipeError) and _is_reader_gone():
        return BROKEN_PIPE, ""
    if isinstance(error, OSError) and error.errno is not None:
        return 2, f"error: {_explain(error)}"
    return None


def _explain(error: OSError) -> str:
    where = error.filename if error.filename is not None else "a file"
    if error.errno in FULL_DISK:
        return f"the disk is full: {error.filename or 'while writing'}; free some space and retry"
    if error.errno in _DENIED:
        return f"{where}: cannot be read or written: {error.strerror}"
    if error.errno in _OTHER_PATH:
        return f"{where}: {error.strerror}; give another path"
    return f"{where}: {error.strerror}" if error.filename is not None else str(error.strerror or error)


def _print_end(code: int, message: str) -> int:
    try:
        print(*([one_line(message)] if message else []), end="\n" if message else "", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)  # the exit code still says what happened
    return code


def _flush_stdout() -> int:
    """Write what `print` buffered; return 0 or the exit code of the failure."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # ValueError: closed
        end = _end(error) or (2, f"error: {error}")
        _discard(sys.stdout)
        return _print_end(*end)
    return 0


def _discard(stream: TextIO) -> None:
    """Send the rest of a stream to the null device; else the interpreter fails to flush it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _is_reader_gone() -> bool:
    """Return whether a broken pipe is that of stdout or stderr, rather than one to another process."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _open_closed_streams() -> None:
    """Open the null device in place of each closed standard stream.

    Otherwise the next file that is opened takes the number of the stream, and what a library prints ends up in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout, sys.stderr = _stream(sys.stdout), _stream(sys.stderr)


def _stream(stream: TextIO | None) -> TextIO:
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # file names need not be printable
    return stream


def _report_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Report errors of the imports that precede `run_command`."""
    end = _end(error)
    if end is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        os._exit(_print_end(*end))


_open_closed_streams()
sys.excepthook = _report_uncaught
