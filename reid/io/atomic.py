"""Atomic writes: a file or folder appears complete or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from reid.errors import InputError

_SPACE_MARGIN = 64 * 2**20


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `path` that replaces `path` when the block ends without an error.

    The content is flushed to the disk before the renaming, so `path` holds either the old content or all of the new.
    After an error, such as an OSError for a full disk, the temporary file is removed. A killed process leaves
    `.NAME.writing`, which the next write to `path` replaces.

    Args:
        path: File to create or replace; its folder must exist.

    Yields:
        The temporary file, open for writing in binary mode.
    """
    temporary = _temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            commit(file, path)
    finally:
        temporary.unlink(missing_ok=True)


def commit(file: IO[bytes], path: Path) -> None:
    """Flush an open temporary file to the disk, close it and rename it to `path`.

    Args:
        file: Temporary file in the folder of `path`, or at least on the same file system.
        path: Name under which the file is published.
    """
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.replace(file.name, path)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write bytes to a file atomically.

    Args:
        path: File to create or replace.
        data: Complete new content.
    """
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: File to create or replace.
        text: Complete new content.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically.

    Args:
        path: File to create or replace.
        content: Anything that `json.dumps` accepts.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Replace `target` by a hard link to `source`, or by a copy where the file system has no hard links.

    Args:
        source: Existing file, which is left as it is.
        target: Name that refers to the content of `source` afterwards.
    """
    temporary = _temporary_name(target)
    try:
        os.link(source, temporary)
    except OSError:
        write_bytes(target, source.read_bytes())
    else:
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # still there if both names were one file already


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that a renaming survives a power failure.

    Args:
        folder: Folder in which files were created or renamed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder that is renamed to `path` when the block ends without an error.

    If another process has created `path` in the meantime, its folder stays and this one is removed.

    Args:
        path: Folder to create.

    Yields:
        The temporary folder to fill, in the parent of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that there is room for a file before it is written.

    Args:
        folder: Existing folder on the file system in question.
        needed: Bytes to be written; 64 MiB more must be free.
        purpose: Subject of the error message, such as "unpacking market.zip".

    Raises:
        InputError: If the file system has too little free space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _SPACE_MARGIN:
        raise InputError(
            f"{purpose} needs {needed / 2**20:,.0f} MiB in {folder}, which has {free / 2**20:,.0f} MiB free; "
            "free some space or choose another cache folder"
        )


def _temporary_name(path: Path) -> Path:
    """The name to write under, with whatever is there removed: opening an existing link would overwrite its target."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.unlink(missing_ok=True)
    return temporary
