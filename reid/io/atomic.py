"""Atomic writes: a file or folder appears complete or not at all, whenever the process is killed."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from reid.errors import InputError
from reid.io.digest import compute_digest
from reid.io.locks import hold, hold_open, remove_abandoned
from reid.io.reading import errors_name

_SPACE_MARGIN = 64 * 2**20
_SYNC_THREADS = 8


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `path` that replaces `path` when the block ends without an error.

    The content is flushed to the disk before the renaming, so `path` holds either the old content or all of the new.
    After an error, such as an OSError for a full disk, the temporary file is removed. A killed process leaves
    `.NAME.writing`, which the next write to `path` replaces. Of two processes that write at the same time, each writes
    its own file, and the last one stays. An OSError of writing names `path`.

    Args:
        path: File to create or replace; its folder must exist.

    Yields:
        The temporary file, open for writing in binary mode.
    """
    with errors_name(path), _open_temporary(path) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            os.replace(file.name, path)  # still open, and therefore held
        except BaseException:
            with contextlib.suppress(OSError):  # the next write tries again
                os.unlink(file.name)
            raise
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


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Write a JSON file atomically.

    Args:
        path: File to create or replace.
        content: Anything that `json.dumps` accepts.
        indent: Spaces per level.
    """
    write_text(path, json.dumps(content, indent=indent) + "\n")


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


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, as far as they are missing, so that they survive a power failure.

    Args:
        folder: Folder to create, unless it exists.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, mark: str, metadata: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Create a temporary folder that is renamed to `path` when the block ends without an error.

    Its files are flushed to the disk first, then the mark by which `is_whole` recognizes the folder, and the renaming
    last. If another process has created `path` in the meantime, its folder stays and this one is removed. What killed
    processes left is removed before.

    Args:
        path: Folder to create; an empty one is replaced.
        mark: Name of the JSON file that describes the folder.
        metadata: Content of the mark; "files" is added, the number of files in subfolders and a digest of their names
            and sizes.

    Yields:
        The temporary folder to fill, in the parent of `path`.
    """
    make_folder(path.parent)
    remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.partial")
    temporary, descriptor = _make_temporary_folder(path)
    try:
        yield temporary
        sync_tree(temporary)
        write_json(temporary / mark, {**(metadata or {}), "files": describe_files(temporary)}, indent=2)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def is_whole(folder: Path, mark: str) -> bool:
    """Return whether a folder of `atomic_folder` still holds the files that were written, by their names and sizes.

    Args:
        folder: The folder.
        mark: Name of its mark.

    Returns:
        False if files are missing, empty or additional, and if the mark is missing, damaged or of an older version.
    """
    try:
        content = json.loads((folder / mark).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("files") == describe_files(folder)


def describe_files(folder: Path) -> dict[str, Any]:
    """Describe the files in the subfolders of a folder.

    Args:
        folder: The folder. Files directly in it and hidden ones are ignored, as other programs add such files.

    Returns:
        "count", the number of files, and "digest", a digest of their relative paths and sizes.
    """
    lines = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(parent) != folder:
            for path in (Path(parent, name) for name in names if not name.startswith(".")):
                lines.append(f"{path.relative_to(folder).as_posix()}\0{path.lstat().st_size}\n")
    return {"count": len(lines), "digest": compute_digest("".join(sorted(lines)).encode("utf-8", "surrogateescape"))}


def sync_tree(folder: Path) -> None:
    """Flush all files and folders in a folder to the disk.

    Args:
        folder: The folder, which is flushed itself after what it holds.
    """
    files, folders = list[str](), list[Path]()
    for parent, _, names in os.walk(folder, topdown=False, onerror=_raise):
        files += [os.path.join(parent, name) for name in names]
        folders.append(Path(parent))
    # Journaling file systems write what several threads flush in one go, which is many times faster than one by one.
    with ThreadPoolExecutor(_SYNC_THREADS, "sync") as pool:
        for _ in pool.map(_sync_file, files):
            pass
    for path in folders:
        sync_folder(path)


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


def _open_temporary(path: Path) -> IO[bytes]:
    """Create and hold `.NAME.writing` in place of what a killed process left; under another name if it is in use."""
    temporary = path.with_name(f".{path.name}.writing")
    while True:
        try:
            file = open(temporary, "xb")  # noqa: SIM115 - never an existing link, whose target would be overwritten
        except FileExistsError:
            if not _is_free(temporary):
                temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")
            continue
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            hold_open(file.fileno())
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(temporary)):
                return file
        file.close()  # between creation and locking, another process took it for abandoned and removed it


def _is_free(temporary: Path) -> bool:
    """Remove an existing temporary file unless a living process holds it; where there are no locks, none is held."""
    descriptor = None
    try:
        descriptor = hold(temporary)
    except BlockingIOError:
        return False
    except FileNotFoundError:  # renamed meanwhile; a file of this name is another by now
        return True
    except OSError:  # a link
        pass
    try:
        if descriptor is None or os.path.samestat(os.fstat(descriptor), os.lstat(temporary)):
            temporary.unlink()
    except FileNotFoundError:
        pass
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def _make_temporary_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        temporary.mkdir()
        try:
            descriptor = hold(temporary)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for abandoned and removes it
        if temporary.exists():
            return temporary, descriptor
        if descriptor is not None:
            os.close(descriptor)


def _temporary_name(path: Path) -> Path:
    """The name to link under, with whatever is there removed."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.unlink(missing_ok=True)
    return temporary


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
