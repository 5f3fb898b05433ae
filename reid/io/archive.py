"""Unpacking a dataset's zip: once, whole or not at all, and never outside its own folder."""

from __future__ import annotations

import errno
import hashlib
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from reid.errors import InputError
from reid.io.atomic import atomic_folder, check_free_space

MAX_BYTES = 4 * 2**30
MAX_ENTRIES = 1_000_000
_PIECE = 2**20
# The others unpack a few bytes to very many at one go.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def extract_zip(archive: Path, *, parts: Collection[str], cache: Path, progress: bool = True) -> Path:
    """Unpack the folders named in `parts` and return the folder that now holds them.

    Only files directly inside a folder of such a name are taken, wherever that folder lies in the zip; they are
    written to `<folder>/<part>/<file>`. The folder lies under `cache` and is named after the zip's name, size and time;
    a second call finds it and unpacks nothing. Raises `InputError` for a file that is no readable zip, an entry that
    would leave the folder, a link, an encrypted, doubled or unusually packed entry, more than 4 GiB or 1,000,000
    entries, or no room.
    """
    status = archive.stat()
    key = hashlib.sha256(f"{archive.name}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache / f"{archive.stem}-{key}"
    marker = folder / ".unpacked"
    if marker.is_file():
        return folder
    if folder.is_symlink():
        raise InputError(f"{folder} is a link where an unpacked zip should be; remove it")
    if folder.is_dir():
        shutil.rmtree(folder)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _wanted(archive, file.infolist(), parts)
            cache.mkdir(parents=True, exist_ok=True)
            check_free_space(cache, sum(_on_disk(entry) for entry in entries.values()), f"unpacking {archive.name}")
            with atomic_folder(folder) as partial:
                for part in {path.parent for path in entries}:
                    (partial / part).mkdir()
                for path, entry in tqdm(
                    entries.items(),
                    desc=f"unpacking {archive.name}",
                    unit="file",
                    disable=None if progress else True,
                    leave=False,
                ):
                    with file.open(entry) as packed, open(partial / path, "xb") as out:
                        # Piece by piece: read as a whole, an entry that holds more than it says fills the memory.
                        shutil.copyfileobj(packed, out, _PIECE)
                (partial / marker.name).touch()
    # What zipfile says of a broken one, of names in another coding than they claim and of places before its start.
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OSError,
    ) as error:  # fmt: skip
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise InputError(f"{archive}: not a readable zip ({error}); download it again") from None
    return folder


def _wanted(
    archive: Path, entries: list[zipfile.ZipInfo], parts: Collection[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """`<part>/<file>` -> entry, after every entry of the zip, wanted or not, was found harmless."""
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{archive}: {len(entries):,} entries, above the limit of {MAX_ENTRIES:,}")
    wanted: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        _check_harmless(archive, entry, path)
        if entry.is_dir() or len(path.parts) < 2 or path.parts[0] == "__MACOSX" or path.name.startswith("."):
            continue
        if path.parts[-2] not in parts:
            continue
        target = PurePosixPath(*path.parts[-2:])
        if target in wanted:
            raise InputError(f"{archive}: two entries would become {target}; this is not the official zip")
        wanted[target] = entry
    total = sum(entry.file_size for entry in wanted.values())
    if total > MAX_BYTES:
        raise InputError(f"{archive}: {total:,} bytes unpacked, above the limit of {MAX_BYTES:,}")
    if not wanted:
        raise InputError(f"{archive}: holds none of the folders {', '.join(sorted(parts))}; is it the right zip?")
    return wanted


def _check_harmless(archive: Path, entry: zipfile.ZipInfo, path: PurePosixPath) -> None:
    name = entry.filename
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise InputError(f"{archive}: the entry {name!r} would leave its folder; nothing was unpacked")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{archive}: the entry {name!r} is a link or a device; nothing was unpacked")
    if entry.compress_type not in _COMPRESSIONS:
        raise InputError(f"{archive}: the entry {name!r} is not packed by deflate; unpack the zip by hand")
    if entry.flag_bits & 0x1:
        raise InputError(f"{archive}: the entry {name!r} is encrypted; unpack the zip by hand and give its folder")


def _on_disk(entry: zipfile.ZipInfo) -> int:
    """Bytes a file takes in blocks of 4 KiB; crops are small, so this is about twice their size."""
    return -(-entry.file_size // 4096) * 4096
