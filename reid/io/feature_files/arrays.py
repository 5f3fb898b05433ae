"""Features in `.npy` arrays or folders of shards, with their labels in `.npy`, `.txt` or `.csv` files."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any, cast

import numpy as np

from reid.errors import InputError
from reid.io.atomic import write_bytes
from reid.io.feature_files.checks import make_features
from reid.io.npy import load_npy
from reid.io.shards import open_matrix, open_shards
from reid.records import Features

_PARTS = ("query", "gallery")


def is_array_folder(folder: Path) -> bool:
    """Whether `folder` holds features as arrays: `query.npy` or `gallery.npy`, or folders of these names."""
    return any((folder / f"{part}.npy").is_file() or (folder / part).is_dir() for part in _PARTS)


def read_array_folder(folder: Path, *, in_memory: int) -> tuple[Features, Features, str]:
    """Query and gallery of a folder, named after it."""
    query, gallery = (_part(folder, "", part, in_memory) for part in _PARTS)
    return query, gallery, folder.resolve().name


def read_array_training(folder: Path) -> tuple[Features, str]:
    """Features of the training images in a folder, in memory, named after it."""
    found = _part(folder, "", "train", in_memory=0)
    return dataclasses.replace(found, values=np.array(found.values[:])), folder.resolve().name


def read_array_files(path: Path, *, in_memory: int) -> tuple[Features, Features, str]:
    """Query and gallery, given the feature file of one of them: `PREFIXquery.npy` or `PREFIXgallery.npy`."""
    prefix = next((path.stem.removesuffix(part) for part in _PARTS if path.stem.endswith(part)), None)
    if prefix is None:
        raise InputError(
            f"{path}: the name must end in query.npy or gallery.npy, so that the other one and the labels are found "
            "beside it; or give the folder that holds them"
        )
    query, gallery = (_part(path.parent, prefix, part, in_memory) for part in _PARTS)
    return query, gallery, prefix.strip("_-. ") or path.resolve().parent.name


def read_matrix_folder(folder: Path) -> tuple[Any, Any]:
    """Query and gallery (N, D) of a folder, `P.npy` or shards in `P/`, without labels: array and memory map or shards.

    Raises InputError where one is missing, broken or no floating matrix, and where their widths differ.
    """
    sides = [
        open_matrix(folder / f"{part}.npy") if (folder / f"{part}.npy").is_file() else open_shards(folder / part)
        for part in _PARTS
    ]
    widths = [int(side.shape[1]) for side in sides]
    if widths[0] != widths[1] or not len(sides[0]) or not len(sides[1]):
        raise InputError(
            f"{folder}: query {tuple(sides[0].shape)} and gallery {tuple(sides[1].shape)} must have rows, of one width"
        )
    return np.array(sides[0][:]), sides[1]


def save_matrix_folder(folder: Path, query: np.ndarray, gallery: np.ndarray) -> None:
    """Write `query.npy` and `gallery.npy`, as `read_matrix_folder` reads them."""
    for part, values in zip(_PARTS, (query, gallery), strict=True):
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        write_bytes(folder / f"{part}.npy", buffer.getbuffer())


def _part(folder: Path, prefix: str, part: str, in_memory: int) -> Features:
    """One side; everything stays in memory but a gallery above `in_memory` bytes and shards."""
    stem = folder / f"{prefix}{part}"
    file = stem.with_name(f"{stem.name}.npy")
    if file.is_file():
        values = open_array(file)
        if part == "query" or values.nbytes <= in_memory:
            values = np.array(values, order="C")
        labels = _labels(stem)
        source = str(file)
    elif stem.is_dir():
        # Shards are read where an array is, by rows; `Features` says how.
        values = cast(np.ndarray, open_shards(stem))
        labels = _labels(stem) or _shard_labels(stem)
        source = str(stem)
    else:
        raise InputError(f"{folder}: holds no {file.name} and no folder {stem.name}/ of shards")
    if labels is None:
        raise InputError(
            f"{source}: no labels beside it; looked for {stem.name}.csv (columns identity, camera) and for "
            f"{stem.name}_ids.npy with {stem.name}_cameras.npy (or .txt)"
        )
    identities, cameras, paths, where = labels
    return make_features(values, source, identities=(identities, where[0]), cameras=(cameras, where[1]), paths=paths)


Labels = tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, str]]


def _labels(stem: Path) -> Labels | None:
    """Identities, cameras, paths and the two files they come from; None where there are none."""
    table = stem.with_name(f"{stem.name}.csv")
    if table.is_file():
        return *_read_table(table), (str(table), str(table))
    files = [_label_file(stem, "ids"), _label_file(stem, "cameras")]
    if files == [None, None]:
        return None
    for file, kind in zip(files, ("ids", "cameras"), strict=True):
        if file is None:
            raise InputError(f"{stem.parent}: holds no {stem.name}_{kind}.npy (or .txt)")
    identities, cameras = (_read_labels(file) for file in files if file is not None)
    return identities, cameras, (), (str(files[0]), str(files[1]))


def _shard_labels(folder: Path) -> Labels | None:
    """The tables beside the shards, one after the other."""
    shards = sorted(folder.glob("*.npy"))
    tables = [shard.with_suffix(".csv") for shard in shards]
    if not any(table.is_file() for table in tables):
        return None
    parts = []
    for shard, table in zip(shards, tables, strict=True):
        if not table.is_file():
            raise InputError(f"{shard}: no labels beside it; its neighbors have a .csv each")
        part = _read_table(table)
        rows = len(open_array(shard))
        if len(part[0]) != rows:
            raise InputError(f"{table}: {len(part[0])} labels for {rows} feature rows")
        parts.append(part)
    identities, cameras = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    paths = tuple(path for part in parts for path in part[2])
    return identities, cameras, paths if len(paths) == len(identities) else (), (f"{folder}/*.csv", f"{folder}/*.csv")


def _label_file(stem: Path, kind: str) -> Path | None:
    candidates = (stem.with_name(f"{stem.name}_{kind}{suffix}") for suffix in (".npy", ".txt"))
    return next((path for path in candidates if path.is_file()), None)


def _read_labels(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.array(open_array(path))
    try:
        return np.array([int(line) for line in path.read_text(encoding="utf-8").split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: one whole number a line is wanted ({error})") from None


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Identities, cameras and, where there is such a column, paths of a CSV file with a header."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            missing = [name for name in ("identity", "camera") if name not in header]
            if missing:
                raise InputError(f"{path}: no column {' and '.join(missing)}; the first line is {', '.join(header)}")
            places = header.index("identity"), header.index("camera")
            lines = [row for row in rows if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no readable table ({error})") from None
    try:
        labels = [np.array([int(row[place]) for row in lines], dtype=np.int64) for place in places]
    except (ValueError, IndexError, OverflowError):
        bad = next(i for i, row in enumerate(lines, 2) if not _whole(row, places))
        raise InputError(f"{path}: row {bad} gives no whole number as identity and camera") from None
    column = header.index("path") if "path" in header else None
    paths = () if column is None else tuple(row[column] if column < len(row) else "" for row in lines)
    return labels[0], labels[1], paths


def _whole(row: list[str], places: tuple[int, int]) -> bool:
    try:
        return all(-(2**63) <= int(row[place]) < 2**63 for place in places)
    except (ValueError, IndexError):
        return False


def open_array(path: Path) -> np.ndarray:
    """A `.npy` as a read-only memory map. Raises InputError for a cut, broken or pickled one."""
    try:
        # An array of no rows cannot be mapped.
        return load_npy(path, mmap_mode="r" if path.stat().st_size > 2**12 else None)
    except (ValueError, OSError) as error:
        size, why = path.stat().st_size, str(error).splitlines()[0]
        raise InputError(f"{path}: cut short at {size:,} bytes, broken, or no plain array ({why})") from None
