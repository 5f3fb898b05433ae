"""Feature rows on disk: appended to files of a fixed number of rows, flushed, and read as memory maps."""

from __future__ import annotations

import errno
import io
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from reid.errors import FULL_DISK, InputError
from reid.io.atomic import sync_folder
from reid.io.shards import Shards

FEATURES_FOLDER = "features"
_CHUNK_ROWS = 4096  # rows read at once
_NAME = re.compile(r"\.?(\d{6})-(\d{6})\.(npy|codes\.npz|codes\.npz\.writing)")


@dataclass(frozen=True)
class ShardLayout:
    """Location and shape of the shards of one generation.

    Attributes:
        folder: The folder of the index.
        generation: Number of times the index was compacted.
        dim: Number D of feature dimensions.
        shard_size: Rows per file.
    """

    folder: Path
    generation: int
    dim: int
    shard_size: int

    @classmethod
    def from_metadata(cls, folder: Path, metadata: Mapping[str, Any]) -> ShardLayout:
        """Create the layout that the metadata of an index describes.

        Args:
            folder: The folder of the index.
            metadata: `generation`, `dim` and `shard`.

        Returns:
            Layout of the current generation.
        """
        return cls(folder, int(metadata["generation"]), int(metadata["dim"]), int(metadata["shard"]))

    def path(self, number: int) -> Path:
        """Return the path of a shard.

        Args:
            number: Number of the shard, from 0.

        Returns:
            Path of a file that need not exist.
        """
        return self.folder / FEATURES_FOLDER / f"{self.generation:06d}-{number:06d}.npy"

    def codes_path(self, number: int) -> Path:
        """Return the path of the codes of a shard, see `reid.search.gallery.code_files`.

        Args:
            number: Number of the shard, from 0.

        Returns:
            Path of a file that need not exist.
        """
        return self.path(number).with_suffix(".codes.npz")

    @property
    def header(self) -> bytes:
        """The `.npy` header of a full shard."""
        buffer = io.BytesIO()
        shape = (self.shard_size, self.dim)
        npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return buffer.getvalue()

    def map_rows(self, count: int) -> list[np.ndarray]:
        """Map the first rows into memory.

        Args:
            count: Number of rows.

        Returns:
            Read-only (n_i, D) float32 memory maps, one per shard.

        Raises:
            InputError: If a file is truncated or has a different shape.
            FileNotFoundError: If a file is missing.
        """
        header = self.header
        shards: list[np.ndarray] = []
        for number in range(-(-count // self.shard_size)):
            path, length = self.path(number), min(self.shard_size, count - number * self.shard_size)
            with open(path, "rb") as file:
                same_header = file.read(len(header)) == header
            if not same_header or path.stat().st_size < len(header) + length * 4 * self.dim:
                raise InputError(
                    f"{path}: corrupt or truncated, expected {length:,} rows of dimension {self.dim}; restore the "
                    "index from a copy, or delete it and build it again"
                )
            shards.append(np.memmap(path, dtype="<f4", mode="r", offset=len(header), shape=(length, self.dim)))
        return shards

    def remove_stale(self, count: int) -> None:
        """Remove what a killed process left: shards and codes of other generations or beyond the rows in use.

        Args:
            count: Number of rows in use.
        """
        for path in (self.folder / FEATURES_FOLDER).iterdir():
            match = _NAME.fullmatch(path.name)
            # Nobody else writes to the folder while it is locked.
            unfinished = path.suffix == ".writing"
            beyond = match and (int(match[1]) != self.generation or int(match[2]) * self.shard_size >= max(count, 1))
            if match and (unfinished or beyond):
                path.unlink()


class ShardWriter:
    """Appends rows to the shards of one generation.

    Args:
        layout: Where the shards are and how large they are.
        position: Index of the next row.
    """

    def __init__(self, layout: ShardLayout, position: int) -> None:
        self.layout, self.position = layout, position

    def append(self, rows: np.ndarray) -> int:
        """Write rows and flush them to the disk.

        Args:
            rows: (n, D) float32. They are overwritten later unless the manifest references them.

        Returns:
            Index of the first row written.

        Raises:
            OSError: If the disk is full, with the name of the file.
        """
        first, written = self.position, 0
        while written < len(rows):
            number, offset = divmod(first + written, self.layout.shard_size)
            chunk = rows[written : written + self.layout.shard_size - offset]
            self._write(self.layout.path(number), offset, chunk)
            written += len(chunk)
        self.position = first + written
        return first

    def _write(self, path: Path, offset: int, rows: np.ndarray) -> None:
        # A shard without any row in use is rewritten.
        new, header = offset == 0, self.layout.header
        try:
            with open(path, "wb" if new else "r+b") as file:
                if new:
                    file.write(header)
                file.seek(len(header) + offset * 4 * self.layout.dim)
                file.truncate()
                file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (*FULL_DISK, errno.EFBIG, errno.EIO):
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise
        if new:
            sync_folder(path.parent)


def find_damaged(rows: Shards, checksums: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
    """Find feature rows that are not as they were written.

    It takes 0.1 s per 200 MB that the system has in memory.

    Args:
        rows: (n, D) float32, as the shards hold them now.
        checksums: (n,) uint32, CRC-32 of each row when it was written.
        indices: Rows to check; None for all.

    Returns:
        Indices of the damaged rows, ascending.
    """
    checked = np.arange(len(rows)) if indices is None else np.unique(indices)
    damaged = []
    for start in range(0, len(checked), _CHUNK_ROWS):
        chunk = checked[start : start + _CHUNK_ROWS]
        damaged.append(chunk[np.array(row_checksums(rows[chunk]), dtype=np.uint32) != checksums[chunk]])
    return np.concatenate([np.empty(0, dtype=np.int64), *damaged])


def row_checksums(rows: np.ndarray) -> list[int]:
    """Compute the CRC-32 of every row.

    Args:
        rows: (n, D) float32.

    Returns:
        One checksum per row.
    """
    return [zlib.crc32(row) for row in np.ascontiguousarray(rows)]
