"""Reading a file whole, so that errors of the machine are never taken for errors in its bytes."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from reid.errors import InputError

_ATTEMPTS = 5

_Options = ParamSpec("_Options")
_Result = TypeVar("_Result")


class NotRegularFile(InputError):
    """A path that exists but is a folder, a pipe or a device."""


def read_file(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> bytes:
    """Read all bytes of a file.

    Bytes are read before they are decoded because a decoder reports a shortage of file descriptors, memory or a failing
    disk as if the bytes were corrupt.

    Args:
        path: A regular file, or a link to one.
        max_bytes: Size above which the file is not read.

    Returns:
        Its content.

    Raises:
        NotRegularFile: If it is a folder, a pipe or a device, whose reading could block.
        InputError: If it is larger than `max_bytes`.
        OSError: If the machine cannot read it now, with `filename` set: missing, no permission, no file descriptors, no
            memory, an I/O error. This says nothing about the bytes.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _read(path, max_bytes)
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), os.fspath(path)) from None
        except OSError as error:
            # Python repeats interrupted calls itself, but some file systems return EINTR from calls it does not repeat.
            if error.errno != errno.EINTR or attempt == _ATTEMPTS - 1:
                if error.filename is None and error.errno is not None:
                    raise OSError(error.errno, error.strerror, os.fspath(path)) from None
                raise
    raise AssertionError("unreachable")


def is_machine_error(error: BaseException) -> bool:
    """Return whether an error while decoding bytes in memory says something about the machine, not about the bytes.

    Args:
        error: Any exception of a decoder.

    Returns:
        True for a lack of memory, in any of the forms in which Python, Pillow and PyTorch report it, and for errors of
        system calls, which have an error number.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return True
    # Pillow raises OSError("out of memory error when ..."), PyTorch RuntimeError("... can't allocate memory ...").
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory error" in text or "can't allocate memory" in text


@contextlib.contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Let errors of the operating system name a file, where they name none or the temporary one it is written under.

    Opening a file names it, but reading, writing and flushing do not.

    Args:
        path: The file that is read or written inside the context.

    Yields:
        None, once.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".writing")):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def names_file(
    read: Callable[Concatenate[Path, _Options], _Result],
) -> Callable[Concatenate[Path, _Options], _Result]:
    """Decorate a function that reads the file of its first argument, so that it raises errors as in `errors_name`.

    Args:
        read: The function.

    Returns:
        The function with named errors.
    """

    @functools.wraps(read)
    def call(path: Path, *arguments: _Options.args, **options: _Options.kwargs) -> _Result:
        with errors_name(path):
            return read(path, *arguments, **options)

    return call


def raise_machine_error(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Raise an error of the operating system again, with the name of the file, before it is taken for corrupt bytes.

    Args:
        error: Exception of a library that reads a file itself.
        path: The file.

    Raises:
        OSError: If the error is one of a system call, except for an invalid argument: corrupt bytes can claim an offset
            before the start of the file.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def describe_text(start: bytes) -> str:
    """Name a text that a download or a clone left in place of a binary file.

    Args:
        start: First bytes of the file, about 500.

    Returns:
        What it is and what to do; empty for anything else.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page, not the file itself: open the address in a browser and download the file from there"
    return ""


def _read(path: str | os.PathLike[str], max_bytes: int | None) -> bytes:
    try:
        status = os.stat(path)
    except ValueError:  # a name with a null character
        raise NotRegularFile(f"{os.fspath(path)!r}: not the name of a file") from None
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularFile(f"{os.fspath(path)}: not a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise InputError(f"{os.fspath(path)}: {status.st_size:,} bytes, above the limit of {max_bytes:,}")
    with open(path, "rb") as file:
        return file.read()
