"""A lock on a folder, so that one process at a time writes to it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import IO

from reid.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


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
    file = open(folder / LOCK_NAME, "a+", encoding="utf-8")  # noqa: SIM115 - stays open while it locks
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
