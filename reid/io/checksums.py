"""Checksums next to files whose format has no place for one: `0.npy` with `0.json`, `a.csv` with `a.csv.json`."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from reid.errors import InputError
from reid.io.atomic import write_bytes, write_json

_PIECE = 2**20


def write_with_checksum(path: Path, data: bytes | memoryview, **notes: int) -> None:
    """Write a file and then its CRC-32, each atomically.

    Args:
        path: File to create or replace.
        data: Its content.
        **notes: Further numbers to write next to the checksum.
    """
    checksum = _checksum_path(path)
    checksum.unlink(missing_ok=True)  # that of an earlier content
    write_bytes(path, data)
    write_json(checksum, {**notes, "crc32": zlib.crc32(data)})


def is_finished(path: Path) -> bool:
    """Return whether a file exists and matches its checksum.

    Args:
        path: File of `write_with_checksum`, which may be missing.

    Returns:
        False also if the checksum is missing or unreadable.
    """
    expected = _read_checksum(path)
    return expected is not None and path.is_file() and _crc32(path) == expected


def check_checksum(path: Path) -> None:
    """Compare a file with its checksum, if it has one.

    Args:
        path: Existing file, of this project or of another program.

    Raises:
        InputError: If the file does not match its checksum.
    """
    expected = _read_checksum(path)
    if expected is not None and _crc32(path) != expected:
        raise InputError(f"{path}: corrupt: it does not match its checksum in {_checksum_path(path).name}")


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".json") if path.suffix == ".npy" else path.with_name(f"{path.name}.json")


def _read_checksum(path: Path) -> int | None:
    """The checksum; None for a file without one, next to which may be any other JSON file."""
    try:
        content = json.loads(_checksum_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    checksum = content.get("crc32") if isinstance(content, dict) else None
    return checksum if isinstance(checksum, int) else None


def _crc32(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum
