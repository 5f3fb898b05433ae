"""Unpacking the zip of a dataset: once, completely or not at all, and never outside its own folder."""

from __future__ import annotations

import errno
import glob
import hashlib
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from reid.errors import InputError
from reid.io.atomic import atomic_folder, check_free_space, is_whole, make_folder
from reid.io.locks import remove_abandoned
from reid.progress import track

MAX_BYTES = 4 * 2**30
MAX_ENTRIES = 1_000_000
_MARK = ".unpacked"
_CHUNK_SIZE = 2**20
_BLOCK_SIZE = 4096  # of a file system
# The other methods can unpack a few bytes to very many in one step.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def extract_zip(archive: Path, *, folders: Collection[str], cache: Path, progress: bool = True) -> Path:
    """Extract some folders of a zip file, unless an earlier call has done so.

    Only files directly inside a folder with one of the names are extracted, wherever that folder is in the archive;
    they are written to `<result>/<folder>/<file>`. The name of the result depends on the name, size and modification
    time of the archive. A result in which files are missing or have other sizes is extracted again.

    Args:
        archive: Zip file to read.
        folders: Names of the folders to extract.
        cache: Folder in which the result is created.
        progress: Show a progress bar on a terminal.

    Returns:
        The folder that holds the extracted folders.

    Raises:
        InputError: If the file is not a readable zip; if an entry would leave the folder, is a link, encrypted,
            duplicate or compressed by an unusual method; above 4 GiB or 1,000,000 entries; if there is too little
            disk space.
    """
    status = archive.stat()
    key = hashlib.sha256(f"{archive.name}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:12]
    result = cache / f"{archive.stem}-{key}"
    if is_whole(result, _MARK):
        return result
    if result.is_symlink():
        raise InputError(f"{result} is a link where an unpacked zip should be; remove it")
    if result.is_dir():
        if is_whole(result, _MARK):  # another process has just extracted it
            return result
        shutil.rmtree(result)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _select_entries(archive, file.infolist(), folders)
            make_folder(cache)
            remove_abandoned(cache, f".{glob.escape(archive.stem)}-*.partial")
            check_free_space(cache, sum(_disk_usage(entry) for entry in entries.values()), f"unpacking {archive.name}")
            with atomic_folder(result, _MARK) as partial:
                _extract(file, entries, partial, progress)
    # All that zipfile raises for corrupt archives, names in another encoding than declared, and negative offsets.
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OSError,
    ) as error:  # fmt: skip
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise InputError(f"{archive}: not a readable zip ({error}); download it again") from None
    return result


def _extract(
    file: zipfile.ZipFile, entries: dict[PurePosixPath, zipfile.ZipInfo], target: Path, progress: bool
) -> None:
    for folder in {path.parent for path in entries}:
        (target / folder).mkdir()
    title = f"unpacking {Path(file.filename or '').name}"
    for path, entry in track(entries.items(), title, unit="files", shown=progress):
        with file.open(entry) as packed, open(target / path, "xb") as out:
            # In chunks: an entry that holds more than it declares would otherwise fill the memory.
            shutil.copyfileobj(packed, out, _CHUNK_SIZE)


def _select_entries(
    archive: Path, entries: list[zipfile.ZipInfo], folders: Collection[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Map `<folder>/<file>` to its entry, after checking every entry, including those that are not extracted."""
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{archive}: {len(entries):,} entries, above the limit of {MAX_ENTRIES:,}")
    selected: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        # Some programs on Windows write backslashes.
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        _check_entry(archive, entry, path)
        if (
            entry.filename.endswith(("/", "\\"))
            or len(path.parts) < 2
            or path.parts[0] == "__MACOSX"
            or path.name.startswith(".")
        ):
            continue
        if path.parts[-2] not in folders:
            continue
        target = PurePosixPath(*path.parts[-2:])
        if target in selected:
            raise InputError(f"{archive}: two entries would become {target}; this is not the official zip")
        selected[target] = entry
    total = sum(entry.file_size for entry in selected.values())
    if total > MAX_BYTES:
        raise InputError(f"{archive}: {total:,} bytes unpacked, above the limit of {MAX_BYTES:,}")
    if not selected:
        raise InputError(f"{archive}: contains no folder {' or '.join(sorted(folders))}; is it the right zip?")
    return selected


def _check_entry(archive: Path, entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    name = entry.filename
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise InputError(f"{archive}: the entry {name!r} would leave its folder; nothing was unpacked")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{archive}: the entry {name!r} is a link or a device; nothing was unpacked")
    if entry.compress_type not in _COMPRESSIONS:
        raise InputError(f"{archive}: the entry {name!r} is not compressed by deflate; unpack the zip by hand")
    if entry.flag_bits & 0x1:
        raise InputError(f"{archive}: the entry {name!r} is encrypted; unpack the zip by hand and give its folder")


def _disk_usage(entry: zipfile.ZipInfo) -> int:
    """Bytes that a file takes in whole blocks; image crops are small, so this is about twice their size."""
    return -(-entry.file_size // _BLOCK_SIZE) * _BLOCK_SIZE
