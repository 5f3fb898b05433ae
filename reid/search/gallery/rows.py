"""Rows of features on the disk: appended to files of a fixed number of rows, flushed, and mapped into memory."""

from __future__ import annotations

import errno
import io
import os
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from reid.errors import FULL_DISK, InputError
from reid.io.atomic import sync_folder

FOLDER = "features"
_NAME = re.compile(r"(\d{6})-(\d{6})\.npy")


def shard_path(folder: Path, generation: int, number: int) -> Path:
    """Where the shard of that number lies."""
    return folder / FOLDER / f"{generation:06d}-{number:06d}.npy"


def checksums(rows: np.ndarray) -> list[int]:
    """The CRC-32 of each row of (n, D) float32."""
    return [zlib.crc32(row) for row in np.ascontiguousarray(rows)]


class RowWriter:
    """Appends rows to the shards of one generation; `place` is that of the next one."""

    def __init__(self, folder: Path, *, generation: int, dim: int, shard: int, place: int) -> None:
        self.folder, self.generation, self.dim, self.shard, self.place = folder, generation, dim, shard, place

    def append(self, rows: np.ndarray) -> int:
        """Write (n, D) float32 rows and flush them to the disk; returns the place of the first.

        Raises OSError, naming the file, for a full disk. What is not named by the manifest afterwards is overwritten.
        """
        first, written = self.place, 0
        while written < len(rows):
            number, inside = divmod(first + written, self.shard)
            part = rows[written : written + self.shard - inside]
            self._write(shard_path(self.folder, self.generation, number), inside, part)
            written += len(part)
        self.place = first + written
        return first

    def _write(self, path: Path, inside: int, rows: np.ndarray) -> None:
        # A shard of which no row counts is begun anew, whatever is left of it.
        fresh = inside == 0
        try:
            with open(path, "wb" if fresh else "r+b") as file:
                if fresh:
                    file.write(header(self.shard, self.dim))
                file.seek(len(header(self.shard, self.dim)) + inside * 4 * self.dim)
                file.truncate()
                file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (*FULL_DISK, errno.EFBIG, errno.EIO):
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise
        if fresh:
            sync_folder(path.parent)


def header(shard: int, dim: int) -> bytes:
    """The start of a shard: that of a `.npy` of `shard` rows, which it is once it is full."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (shard, dim)})
    return buffer.getvalue()


def map_rows(folder: Path, *, generation: int, dim: int, shard: int, rows: int) -> list[np.ndarray]:
    """The first `rows` rows of a generation as read-only memory maps, a shard each.

    Raises InputError for a file that is cut short or of another shape, FileNotFoundError for one that is not there.
    """
    start = header(shard, dim)
    parts: list[np.ndarray] = []
    for number in range(-(-rows // shard)):
        path, held = shard_path(folder, generation, number), min(shard, rows - number * shard)
        with open(path, "rb") as file:
            same = file.read(len(start)) == start
        if not same or path.stat().st_size < len(start) + held * 4 * dim:
            raise InputError(
                f"{path}: broken or cut short: it should hold {held:,} rows of {dim}; put the file back from a copy, "
                "or remove the index and index again"
            )
        parts.append(np.memmap(path, dtype="<f4", mode="r", offset=len(start), shape=(held, dim)))
    return parts


def clean(folder: Path, *, generation: int, shard: int, rows: int) -> None:
    """Remove shards of other generations and beyond the rows that count: what a killed process left."""
    for path in (folder / FOLDER).iterdir():
        match = _NAME.fullmatch(path.name)
        if match and (int(match[1]) != generation or int(match[2]) * shard >= max(rows, 1)):
            path.unlink()
