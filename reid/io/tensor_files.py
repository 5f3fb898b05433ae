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

FORMAT = 1  # version of this project's checkpoints
MAX_DEPTH = 64
MAX_VALUES = 5_000_000
_UNCHECKED_BYTES = 2**26  # claims up to this size are harmless

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

    A full disk or Ctrl-C inside torch's own file writer would become a RuntimeError, so files are written from here.

    Args:
        content: Tensors and plain Python values.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
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


def check_archive_size(path: Path) -> None:
    """Check that a zip archive is not much larger unpacked than packed, as `torch.save` compresses nothing but scripts.

    Args:
        path: A file that may or may not be a zip archive.

    Raises:
        ValueError: If it claims to hold far more than its own size.
    """
    if not zipfile.is_zipfile(path):
        return
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError):
        return  # reported by `torch.load`
    if unpacked > size + _UNCHECKED_BYTES:
        raise ValueError(
            f"uncompressed size {unpacked:,} exceeds file size {size:,}; torch.save files are not compressed"
        )


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
