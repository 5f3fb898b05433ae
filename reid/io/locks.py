"""Locks of the kernel, which end with their process: on folders that are written to, and on temporary files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from pathlib import Path
from typing import IO

from reid.errors import InputError
from reid.io.reading import names_file

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
# A link is not followed, and a pipe does not block.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


@names_file
def lock_folder(folder: Path, busy: str = "trains into it; let it end, or choose another OUTPUT_DIR") -> IO[str]:
    """Lock a folder until the file is closed or the process ends, however it ends.

    Args:
        folder: Existing folder in which a lock file is created.
        busy: End of the error message, after the name of the process that holds the lock.

    Returns:
        The open lock file; closing it releases the lock. On Windows, and on network file systems without locks, nothing
        is locked.

    Raises:
        InputError: If another process holds the lock.
    """
    # It stays open while it locks.
    file = open(folder / LOCK_NAME, "a+", encoding="utf-8", opener=_open_regular)  # noqa: SIM115
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return file
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        raise InputError(f"{folder}: {holder} {busy}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def hold(path: Path) -> int | None:
    """Mark a temporary file or folder as in use until the descriptor is closed or the process ends.

    Unlike a process number or a time, the mark is right in containers, where every process may have the same number,
    and when a clock is wrong.

    Args:
        path: Existing file or folder; a link is not followed.

    Returns:
        The descriptor to close, or None where the file system or the platform has no such locks.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If it does not exist any more, or is a link.
    """
    # Network file systems lock only what is open for writing, which a folder cannot be.
    mode = os.O_RDONLY if path.is_dir() and not path.is_symlink() else os.O_RDWR
    descriptor = os.open(path, mode | _NO_FOLLOW)
    try:
        locked = hold_open(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if locked:
        return descriptor
    os.close(descriptor)
    return None


def hold_open(descriptor: int) -> bool:
    """Do the same as `hold` with a file or folder that is open.

    Args:
        descriptor: Descriptor of the open file.

    Returns:
        Whether the file system and the platform have such locks.

    Raises:
        BlockingIOError: If another process holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (*NO_LOCKS, errno.EBADF):
            return False
        raise
    return True


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove temporary files and folders whose process has ended, however it ended.

    Nothing is removed where the file system has no locks.

    Args:
        folder: Folder that holds them.
        pattern: Glob pattern of their names, which must be held while they are in use.
    """
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # in use, or another process removes it
            descriptor = hold(path)
            if descriptor is None:
                continue
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


def _open_regular(path: str, flags: int) -> int:
    """Open a lock file, but not the file that a link points to, which would be emptied."""
    return os.open(path, flags | _NO_FOLLOW, 0o666)
