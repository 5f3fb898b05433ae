"""Serialized tensors: the format, and bounds on what a file may claim to hold.

A file of a kilobyte can claim terabytes in several ways, so claims are compared with the size of the file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.errors import InputError, no_interrupt

FORMAT = 1  # version of this project's checkpoints
MAX_DEPTH = 64
MAX_VALUES = 5_000_000
_UNCHECKED_BYTES = 2**26  # claims up to this size are harmless
_ZIP = b"PK\x03\x04"
_END = b"PK\x05\x06" + bytes(18)  # of an archive without a comment; other bytes vary
_DIRECTORY = 0x10  # an attribute of MS-DOS

# A NumPy scalar is pickled as a call of `scalar` with a dtype and bytes, which executes nothing. NumPy 1 has another
# name for the function. Object dtypes are not in the list.
_SCALAR = np.float64().__reduce__()[0]
SAFE_GLOBALS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]


def to_bytes(content: Any) -> memoryview:
    """Serialize by `torch.save` in memory.

    A full disk would become a RuntimeError inside torch's own file writer, so files are written from here. Ctrl-C
    waits for the end, since it would be lost in a callback from C++.

    Args:
        content: Tensors and plain Python values.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    with no_interrupt():
        torch.save(content, buffer)
    return buffer.getbuffer()


def from_bytes(data: bytes) -> Any:
    """Deserialize what `to_bytes` returned, without executing pickles.

    Args:
        data: The bytes of the file.

    Returns:
        The content, with tensors on the CPU.
    """
    with torch.serialization.safe_globals(SAFE_GLOBALS):
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def copy_archive(path: Path) -> Path | io.BytesIO:
    """Copy a file of `torch.save` entry by entry in memory, so that PyTorch parses only an archive written here.

    PyTorch's parser checks no checksum and differs from Python's in which entries it skips and which of two it takes;
    after this copy there is nothing left that both could read differently.

    Args:
        path: File that may or may not be a zip archive.

    Returns:
        The copy, or `path` if the file is not an archive to PyTorch.

    Raises:
        InputError: If an entry is corrupt, a folder, or named like another one, or the archive is cut short.
        ValueError: If the archive claims to hold far more than its own size.
        zipfile.BadZipFile: If it is no sound archive; zlib.error, EOFError, RuntimeError and OSError occur too.
    """
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:  # as in `torch.load`
            return path
        file.seek(max(file.seek(0, io.SEEK_END) - len(_END), 0))
        end = file.read()
    # PyTorch writes no comment; a checkpoint of this project that was cut short or changed in its digest has one.
    if (end[:4], end[-2:]) != (_END[:4], _END[-2:]):
        raise InputError(f"{path}: corrupt or not a checkpoint: its end is missing or was changed")
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        _check_entries(source, path)
        for entry in source.infolist():
            try:
                data = source.read(entry)
            except zipfile.BadZipFile:
                raise InputError(f"{path}: corrupt: {entry.filename} does not match its checksum") from None
            if len(data) != entry.file_size:
                raise InputError(f"{path}: corrupt: {entry.filename} is shorter than the archive says")
            target.writestr(zipfile.ZipInfo(entry.filename), data)
    copy.seek(0)
    return copy


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    entries, size = archive.infolist(), path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size + _UNCHECKED_BYTES:
        raise ValueError(
            f"uncompressed size {unpacked:,} exceeds file size {size:,}; torch.save files are not compressed"
        )
    names = set()
    for entry in entries:
        if entry.is_dir() or entry.external_attr & _DIRECTORY:
            raise InputError(f"{path}: corrupt: {entry.filename} is marked as a folder")
        if entry.filename.lower() in names:  # PyTorch ignores the case
            raise InputError(f"{path}: corrupt: {entry.filename} exists twice")
        names.add(entry.filename.lower())


def check_tensors(content: Any, size: int) -> None:
    """Check that deserialized content is not nested too deeply and that its tensors fit in the file.

    A stride of 0 turns a single number into a tensor of any shape.

    Args:
        content: Nested mappings and sequences of tensors and other values.
        size: Size of the file in bytes.

    Raises:
        ValueError: If a bound is exceeded.
    """
    pending, count, total = [(content, 0)], 0, 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(f"values nested deeper than {MAX_DEPTH} or more than {MAX_VALUES:,}")
        if isinstance(value, Mapping):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, Tensor):
            total += 0 if value.layout != torch.strided else value.numel() * value.element_size()
            if value.is_meta or total > 16 * size + _UNCHECKED_BYTES:
                raise ValueError("tensors with more elements than the file holds")


def is_dense(value: Any) -> bool:
    """Return whether a value is a dense tensor of real numbers, as weights are.

    Args:
        value: Object of any type.

    Returns:
        False for sparse, quantized, complex and nested tensors, and for anything else.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_nested)
    )
