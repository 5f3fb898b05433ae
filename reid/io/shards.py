"""Feature matrices larger than memory: `.npy` files as memory maps, several of them as one matrix."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.npy import load_npy


class Shards:
    """Matrices (n_i, D) of one dtype, one below the other, read only where asked: `shards[a:b]`, `shards[indices]`.

    What is asked for comes as an array in memory. A slice has no step; indices are an integer array, counted from 0.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        if not parts:
            raise InputError("a matrix in shards has at least one shard")
        first = parts[0]
        for number, part in enumerate(parts):
            if part.ndim != 2 or part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise InputError(
                    f"shard {number} holds {part.dtype} {part.shape}, shard 0 {first.dtype} {first.shape}: "
                    "they must be matrices of one width and one type"
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
                raise IndexError("shards are read in rows next to each other, or by indices")
            pieces = [
                part[max(start - first, 0) : max(stop - first, 0)]
                for part, first in zip(self._parts, self._starts[:-1].tolist(), strict=True)
                if first < stop and first + len(part) > start
            ]
            return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), self.dtype)
        indices = np.asarray(rows)
        if indices.ndim != 1 or (len(indices) and not np.issubdtype(indices.dtype, np.integer)):
            raise TypeError(
                f"shards are read by a slice or by an array of integers, not {indices.dtype} {indices.shape}"
            )
        indices = indices.astype(np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of {len(self)}")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        found = np.empty((len(indices), self.shape[1]), self.dtype)
        for number in np.unique(shard).tolist():
            chosen = shard == number
            found[chosen] = self._parts[number][indices[chosen] - self._starts[number]]
        return found


def open_matrix(path: Path) -> np.ndarray:
    """A `.npy` matrix (N, D) of floats as a read-only memory map. Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        matrix = load_npy(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        why = "an .npz archive under the name of a .npy file; save one matrix with numpy.save"
        raise InputError(
            f"{path}: {why if zipfile.is_zipfile(path) else f'broken, cut short or no .npy file ({error})'}"
        ) from None
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise InputError(f"{path}: features are a floating (N, D) matrix, not {matrix.dtype} {matrix.shape}")
    return matrix


def open_shards(folder: Path) -> Shards:
    """The `.npy` matrices of a folder in the order of their names, as one. Raises InputError where there is none."""
    paths = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no folder with .npy files")
    matrices = [open_matrix(path) for path in paths]
    for path, matrix in zip(paths, matrices, strict=True):
        if matrix.shape[1] != matrices[0].shape[1] or matrix.dtype != matrices[0].dtype:
            raise InputError(
                f"{path}: {matrix.dtype} of width {matrix.shape[1]}, but {paths[0].name} holds {matrices[0].dtype} of "
                f"width {matrices[0].shape[1]}"
            )
    return Shards(matrices)
