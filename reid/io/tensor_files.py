"""What a file of tensors claims to hold against what it is: a kilobyte can claim terabytes in several ways."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1  # of the checkpoints of this project
MAX_DEPTH = 64
MAX_VALUES = 5_000_000
_FREE = 2**26  # bytes that need no looking at


def check_archive_size(path: Path) -> None:
    """Raise ValueError for a zip that holds far more than its own size: `torch.save` compresses nothing but scripts."""
    if not zipfile.is_zipfile(path):
        return
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError):
        return  # for `torch.load` to tell
    if held > size + _FREE:
        raise ValueError(f"it holds {held:,} bytes in a file of {size:,}, and torch.save compresses nothing")


def check_tensors(content: Any, size: int) -> None:
    """Raise ValueError for what cannot be walked through, and for tensors of more numbers than a file can hold.

    size: of the file, in bytes. A stride of 0 makes one number a tensor of any shape.
    """
    pending, seen, held = [(content, 0)], 0, 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise ValueError(f"values nested deeper than {MAX_DEPTH} or more than {MAX_VALUES:,}")
        if isinstance(value, Mapping):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, Tensor):
            held += 0 if value.layout != torch.strided else value.numel() * value.element_size()
            if value.is_meta or held > 16 * size + _FREE:
                raise ValueError("tensors of more numbers than the file holds")


def is_dense(value: Any) -> bool:
    """Whether a value is a tensor of real numbers, one beside the other, as a weight is."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_nested)
    )
