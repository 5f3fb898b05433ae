"""The lock of a folder that one process at a time may write to."""

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
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network disks


def lock_folder(folder: Path, busy: str = "trains into it; let it end, or choose another OUTPUT_DIR") -> IO[str]:
    """The lock of a folder, which the kernel takes back when the process ends however it may end.

    Raises InputError where another has it: who, and `busy`.
    """
    file = open(folder / LOCK_NAME, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as it locks
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
