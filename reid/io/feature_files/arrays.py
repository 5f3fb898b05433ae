"""Features in `.npy` files or folders of shards, with labels in `.npy`, `.txt` or `.csv` files."""

from __future__ import annotations

import csv
import dataclasses
import glob
import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np

from reid.errors import InputError
from reid.io.checksums import check_checksum
from reid.io.feature_files.checks import make_features
from reid.io.npy import load_npy
from reid.io.reading import raise_machine_error
from reid.io.shards import open_matrix, open_shards, save_matrix
from reid.records import Features

_SPLITS = ("query", "gallery")


def is_array_folder(folder: Path) -> bool:
    """Return whether a folder holds features as arrays.

    Args:
        folder: Existing folder with or without features.

    Returns:
        True if it contains `query.npy` or `gallery.npy`, or folders called `query` or `gallery`.
    """
    return any((folder / f"{split}.npy").is_file() or (folder / split).is_dir() for split in _SPLITS)


def read_array_folder(folder: Path, *, max_in_memory: int) -> tuple[Features, Features, str]:
    """Read query and gallery from a folder.

    Args:
        folder: Folder with a `.npy` file or a folder of shards for each, and their labels.
        max_in_memory: Size in bytes up to which the gallery is loaded instead of mapped.

    Returns:
        Query, gallery and the name of the folder.

    Raises:
        InputError: If a file is missing, corrupt or does not fit.
    """
    query, gallery = (_read_split(folder, "", split, max_in_memory) for split in _SPLITS)
    return query, gallery, folder.resolve().name


def read_array_training(folder: Path) -> tuple[Features, str]:
    """Read features of training images from a folder into memory.

    Args:
        folder: Folder with `train.npy` or shards in `train/`, and their labels.

    Returns:
        The features and the name of the folder.

    Raises:
        InputError: If a file is missing, corrupt or does not fit.
    """
    features = _read_split(folder, "", "train", max_in_memory=0)
    return dataclasses.replace(features, values=np.array(features.values[:])), folder.resolve().name


def read_array_files(path: Path, *, max_in_memory: int) -> tuple[Features, Features, str]:
    """Read query and gallery, given the feature file of one of them.

    Args:
        path: `PREFIXquery.npy` or `PREFIXgallery.npy`; the other files are found by the prefix.
        max_in_memory: Size in bytes up to which the gallery is loaded instead of mapped.

    Returns:
        Query, gallery and the prefix, or the name of the folder if there is no prefix.

    Raises:
        InputError: If a file is missing, corrupt or does not fit.
    """
    prefix = next((path.stem.removesuffix(split) for split in _SPLITS if path.stem.endswith(split)), None)
    if prefix is None:
        raise InputError(
            f"{path}: the name must end in query.npy or gallery.npy, so that the other one and the labels are found "
            "next to it; or give the folder that holds them"
        )
    query, gallery = (_read_split(path.parent, prefix, split, max_in_memory) for split in _SPLITS)
    return query, gallery, prefix.strip("_-. ") or path.resolve().parent.name


def read_matrix_folder(folder: Path) -> tuple[Any, Any]:
    """Read query and gallery matrices without labels.

    Args:
        folder: Folder with `query.npy` and `gallery.npy`, or shards in folders of these names.

    Returns:
        Query (Q, D) in memory, and gallery (G, D) as a memory map or `Shards`.

    Raises:
        InputError: If one is missing, corrupt or empty, or their dimensions differ.
    """
    matrices = [
        open_matrix(folder / f"{split}.npy") if (folder / f"{split}.npy").is_file() else open_shards(folder / split)
        for split in _SPLITS
    ]
    widths = [int(matrix.shape[1]) for matrix in matrices]
    if widths[0] != widths[1] or not len(matrices[0]) or not len(matrices[1]):
        raise InputError(
            f"{folder}: query {tuple(matrices[0].shape)} and gallery {tuple(matrices[1].shape)} must have rows "
            "of the same width"
        )
    return np.array(matrices[0][:]), matrices[1]


def read_labeled_shards(folder: Path) -> Features:
    """Read one set of images from a folder of shards.

    Args:
        folder: Folder of shards, with the labels next to it or in it.

    Returns:
        The features, of which the values are read when they are used.

    Raises:
        InputError: If a file is missing, corrupt or does not fit.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of shards")
    return _read_split(folder.resolve().parent, "", folder.resolve().name, 0)


def save_matrix_folder(folder: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    """Write `query.npy` and `gallery.npy` for `read_matrix_folder`, each with a checksum next to it.

    Args:
        folder: Existing folder; files of the same names are replaced.
        query: (Q, D) features.
        gallery: (G, D) features.
    """
    for split, values in zip(_SPLITS, (query, gallery), strict=True):
        save_matrix(folder / f"{split}.npy", values)


def _read_split(folder: Path, prefix: str, split: str, max_in_memory: int) -> Features:
    """Everything is loaded into memory except a gallery above `max_in_memory` bytes and shards."""
    stem = folder / f"{prefix}{split}"
    file = stem.with_name(f"{stem.name}.npy")
    if file.is_file():
        values = _open_array(file)
        if split == "query" or values.nbytes <= max_in_memory:
            values = np.array(values, order="C")
        labels = _labels(stem)
        source = str(file)
    elif stem.is_dir():
        # Shards are indexed by rows like an array; see `Features`.
        values = cast(np.ndarray, open_shards(stem))
        labels = _labels(stem) or _shard_labels(stem)
        source = str(stem)
    else:
        raise InputError(f"{folder}: has no {file.name} and no folder {stem.name}/ of shards")
    if labels is None:
        others = ", ".join(sorted(path.name for path in folder.glob(f"{glob.escape(stem.name)}*") if path != file))
        raise InputError(
            f"{source}: no labels next to it; looked for {stem.name}.csv (columns identity, camera) and for "
            f"{stem.name}_ids.npy with {stem.name}_cameras.npy (or .txt)" + (f"; found {others}" if others else "")
        )
    identities, cameras, paths, files = labels
    return make_features(values, source, identities=(identities, files[0]), cameras=(cameras, files[1]), paths=paths)


# Identities, cameras, image paths, and the files from which identities and cameras come.
Labels = tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, str]]


def _labels(stem: Path) -> Labels | None:
    table = stem.with_name(f"{stem.name}.csv")
    if table.is_file():
        return *_read_table(table), (str(table), str(table))
    files = [_label_file(stem, "ids"), _label_file(stem, "cameras")]
    if files == [None, None]:
        return None
    for file, kind in zip(files, ("ids", "cameras"), strict=True):
        if file is None:
            raise InputError(f"{stem.parent}: has no {stem.name}_{kind}.npy (or .txt)")
    identities, cameras = (_read_labels(file) for file in files if file is not None)
    return identities, cameras, (), (str(files[0]), str(files[1]))


def _shard_labels(folder: Path) -> Labels | None:
    """Read the tables next to the shards and concatenate them."""
    shards = sorted(folder.glob("*.npy"))
    tables = [shard.with_suffix(".csv") for shard in shards]
    if not any(table.is_file() for table in tables):
        return None
    parts = []
    for shard, table in zip(shards, tables, strict=True):
        if not table.is_file():
            raise InputError(f"{shard}: no labels next to it; the other shards have .csv files")
        part = _read_table(table)
        rows = len(_open_array(shard))
        if len(part[0]) != rows:
            raise InputError(f"{table}: {len(part[0])} labels for {rows} feature rows")
        parts.append(part)
    identities, cameras = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    paths = tuple(path for part in parts for path in part[2])
    return identities, cameras, paths if len(paths) == len(identities) else (), (f"{folder}/*.csv", f"{folder}/*.csv")


def _label_file(stem: Path, kind: str) -> Path | None:
    candidates = (stem.with_name(f"{stem.name}_{kind}{suffix}") for suffix in (".npy", ".txt", ".csv"))
    return next((path for path in candidates if path.is_file()), None)


def _read_labels(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.array(_open_array(path))
    try:
        return np.array([_whole_number(line) for line in path.read_text(encoding="utf-8-sig").split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: must hold one whole number per line ({error})") from None


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read identities, cameras and, if there is such a column, paths from a CSV file with a header."""
    check_checksum(path)
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            # Excel separates by semicolons in many countries; np.savetxt starts the header with #.
            first = file.readline().lstrip("# ")
            rows = csv.reader(itertools.chain([first], file), delimiter=max(",;\t", key=first.count))
            header = [name.strip().lower() for name in next(rows, [])]
            missing = [name for name in ("identity", "camera") if name not in header]
            if missing:
                raise InputError(
                    f"{path}: has no column {' and '.join(missing)}; the first line is {', '.join(header)}"
                )
            indices = header.index("identity"), header.index("camera")
            lines = [(rows.line_num, row) for row in rows if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: unreadable table ({error})") from None
    try:
        labels = [np.array([_whole_number(row[column]) for _, row in lines], dtype=np.int64) for column in indices]
    except (ValueError, IndexError, OverflowError):
        bad = next(number for number, row in lines if not _is_valid(row, indices))
        raise InputError(f"{path}: line {bad} has no whole numbers as identity and camera") from None
    if "path" not in header:
        return labels[0], labels[1], ()
    column = header.index("path")
    paths = tuple(row[column] if column < len(row) else "" for _, row in lines)
    return labels[0], labels[1], paths


def _whole_number(text: str) -> int:
    """Parse an integer, also as np.savetxt writes it: 1.000000000000000000e+00."""
    if "_" in text:  # int("1_2") is 12
        raise ValueError(f"{text!r} is not a whole number")
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():  # inf and nan are not, either
            raise ValueError(f"{text!r} is not a whole number") from None
        return int(number)


def _is_valid(row: list[str], columns: tuple[int, int]) -> bool:
    try:
        return all(-(2**63) <= _whole_number(row[column]) < 2**63 for column in columns)
    except (ValueError, IndexError):
        return False


def _open_array(path: Path) -> np.ndarray:
    """A read-only memory map, or an array in memory if the file is small."""
    check_checksum(path)
    try:
        # An array without rows cannot be mapped.
        return load_npy(path, mmap_mode="r" if path.stat().st_size > 2**12 else None)
    except (ValueError, OSError) as error:
        raise_machine_error(error, path)
        size, reason = path.stat().st_size, str(error).splitlines()[0]
        raise InputError(f"{path}: truncated at {size:,} bytes, corrupt, or not a plain array ({reason})") from None
