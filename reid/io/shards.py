"""Feature matrices larger than memory: memory-mapped `.npy` files, several of them as one matrix."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.checksums import check_checksum, write_with_checksum
from reid.io.npy import load_npy
from reid.io.reading import raise_machine_error


class Shards:
    """Matrices concatenated along the rows, of which only the requested rows are read.

    `shards[a:b]` and `shards[indices]` return arrays in memory. A slice must have step 1; indices are an array of
    integers from 0. The attributes `shape`, `dtype` and `ndim` are those of an array.

    Args:
        parts: Matrices (n_i, D) of one dtype, usually memory maps.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        if not parts:
            raise InputError("a sharded matrix must have at least one shard")
        first = parts[0]
        for number, part in enumerate(parts):
            if part.ndim != 2 or part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise InputError(
                    f"shard {number} holds {part.dtype} {part.shape}, shard 0 {first.dtype} {first.shape}: "
                    "all must be matrices of the same width and dtype"
                )
        self._parts = list(parts)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape = (int(self._starts[-1]), int(first.shape[1]))
        self.dtype = first.dtype
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise IndexError("shards are read by slices of step 1 or by indices")
            pieces = [
                part[max(start - first, 0) : max(stop - first, 0)]
                for part, first in zip(self._parts, self._starts[:-1].tolist(), strict=True)
                if first < stop and first + len(part) > start
            ]
            return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), self.dtype)
        indices = np.asarray(rows)
        if indices.ndim != 1 or (len(indices) and not np.issubdtype(indices.dtype, np.integer)):
            raise TypeError(
                f"shards are indexed by a slice or an array of integers, not {indices.dtype} {indices.shape}"
            )
        indices = indices.astype(np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows {indices.min()} to {indices.max()} are out of range for {len(self)} rows")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        result = np.empty((len(indices), self.shape[1]), self.dtype)
        for number in np.unique(shard).tolist():
            chosen = shard == number
            result[chosen] = self._parts[number][indices[chosen] - self._starts[number]]
        return result


def save_matrix(path: Path, values: np.ndarray) -> None:
    """Write a `.npy` file atomically, and its checksum next to it.

    Args:
        path: File to create or replace; its folder is created.
        values: (N, D) matrix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_with_checksum(path, buffer.getbuffer(), rows=len(values))


def open_matrix(path: Path) -> np.ndarray:
    """Map a feature matrix into memory.

    Args:
        path: A `.npy` file; the checksum that `save_matrix` writes may be missing.

    Returns:
        (N, D) floating-point matrix, a read-only memory map.

    Raises:
        InputError: If the file is missing, corrupt or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    check_checksum(path)
    try:
        matrix = load_npy(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise_machine_error(error, path)
        if zipfile.is_zipfile(path):
            reason = "an .npz archive under the name of a .npy file; save one matrix with numpy.save"
        else:
            reason = f"corrupt, truncated, or not a .npy file ({error})"
        raise InputError(f"{path}: {reason}") from None
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise InputError(f"{path}: features must be a floating-point (N, D) matrix, not {matrix.dtype} {matrix.shape}")
    return matrix


def open_shards(folder: Path) -> Shards:
    """Map all `.npy` matrices of a folder into memory as one matrix.

    Args:
        folder: Folder of the shards, which are concatenated in the order of their names.

    Returns:
        (N, D) matrix whose rows are read when they are used.

    Raises:
        InputError: If there are no shards, or they are corrupt or do not fit together.
    """
    paths = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: not a folder with .npy files")
    matrices = [open_matrix(path) for path in paths]
    for path, matrix in zip(paths, matrices, strict=True):
        if matrix.shape[1] != matrices[0].shape[1] or matrix.dtype != matrices[0].dtype:
            raise InputError(
                f"{path}: {matrix.dtype} of width {matrix.shape[1]}, but {paths[0].name} holds {matrices[0].dtype} of "
                f"width {matrices[0].shape[1]}"
            )
    return Shards(matrices)
