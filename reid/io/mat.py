"""MATLAB files of version 5 to 7: numbers, strings and cell arrays of these.

Follows MathWorks, "MAT-File Format". SciPy's reader is compiled and trusts what it reads, so a damaged file can crash
the process. Here every length is checked against the size of the file.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_RATIO = 100  # of the uncompressed to the compressed size
MAX_DEPTH = 8  # of cell arrays in cell arrays
_UNCHECKED_BYTES = 2**26  # uncompressed sizes up to this are harmless
_HEADER_BYTES = 4096  # of a variable, which contain its name

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRINGS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x08


@dataclass(frozen=True)
class _Header:
    """The header of a variable, and the offset of what follows it."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    end: int


def list_variables(path: Path) -> list[str]:
    """List the names of the variables in a file.

    Args:
        path: MATLAB file, possibly from an untrusted source.

    Returns:
        The names in the order of the file.

    Raises:
        ValueError: If the file is corrupt or not a MATLAB file of version 5 to 7.
    """
    return [name for name, _, _ in _iterate_variables(path)]


def load_variables(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Load variables from a file.

    Args:
        path: MATLAB file, possibly from an untrusted source.
        names: The variables to load; those that the file does not have are skipped.

    Returns:
        Name to array of at least two dimensions, as MATLAB has them. A cell array has dtype object, a string is an
        array () of str.

    Raises:
        ValueError: If the file is corrupt, not of version 5 to 7, or much larger uncompressed, or if a variable is a
            structure or a sparse or complex matrix.
    """
    variables = _iterate_variables(path, complete=names)
    return {name: _parse_value(data, order, name) for name, data, order in variables if name in names}


def _iterate_variables(path: Path, complete: Collection[str] = ()) -> Iterator[tuple[str, bytes | memoryview, str]]:
    """Name, content and byte order of each variable; compressed ones not in `complete` are truncated."""
    data = memoryview(np.memmap(path, np.uint8, "r"))
    if len(data) < 128 or bytes(data[126:128]) not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB file of version 5 to 7")
    order = "<" if bytes(data[126:128]) == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version == 0x0200:
        raise ValueError("a MATLAB file of version 7.3, which is not supported; save it again with save(..., '-v7')")
    remaining, offset = MAX_RATIO * len(data) + _UNCHECKED_BYTES, 128
    while offset < len(data):
        kind, content, offset = _parse_element(data, offset, order)
        if kind == _COMPRESSED:
            start = _decompress(content, _HEADER_BYTES)
            name = _parse_header(memoryview(start), order, 8).name
            if name in complete:
                uncompressed = _decompress(content, remaining + 1)
                remaining -= len(uncompressed)
                if remaining < 0:
                    raise ValueError(f"uncompressed size exceeds {MAX_RATIO} times the file size {len(data):,}")
                inner, content, _ = _parse_element(memoryview(uncompressed), 0, order)
                if inner != _MATRIX:
                    raise ValueError("a compressed element that is not a variable")
            yield name, content, order
        elif kind == _MATRIX:
            yield _parse_header(content, order, 0).name, content, order


def _decompress(content: memoryview, max_bytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, max_bytes)
    except zlib.error as error:
        raise ValueError(f"a damaged variable ({error})") from None


def _parse_element(data: memoryview, offset: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at an offset, and the offset of the next one."""
    if offset + 8 > len(data):
        raise ValueError("truncated")
    kind, size = struct.unpack_from(f"{order}II", data, offset)
    if kind >> 16:  # a small element, whose content is in the tag
        kind, size, start, end = kind & 0xFFFF, kind >> 16, offset + 4, offset + 8
        if size > 4:
            raise ValueError("an invalid tag")
    else:
        start = offset + 8
        end = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
    if start + size > len(data):
        raise ValueError("truncated")
    return kind, data[start : start + size], end


def _parse_header(data: memoryview, order: str, offset: int) -> _Header:
    _, flags, offset = _parse_element(data, offset, order)
    _, dimensions, offset = _parse_element(data, offset, order)
    _, name, offset = _parse_element(data, offset, order)
    if len(flags) != 8 or len(dimensions) % 4 or not 8 <= len(dimensions) <= 128:
        raise ValueError("a variable with an invalid header")
    (packed,) = struct.unpack_from(f"{order}I", flags, 0)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if min(shape) < 0:
        raise ValueError(f"a variable of the negative shape {shape}")
    return _Header(packed & 0xFF, packed >> 8 & 0xFF, shape, bytes(name).decode("latin1"), offset)


def _parse_value(data: bytes | memoryview, order: str, name: str, depth: int = 0) -> np.ndarray:
    content = memoryview(data)
    header = _parse_header(content, order, 0)
    count = math.prod(header.shape)
    if header.kind == _CELL:
        return _parse_cells(content, header, order, name, depth)
    if header.kind != _CHAR and (header.kind not in _CLASSES or header.flags & _COMPLEX):
        raise ValueError(f"{name} is not a plain array of numbers or strings")
    kind, values, _ = _parse_element(content, header.end, order) if count else (2, memoryview(b""), 0)
    if header.kind == _CHAR:
        return _parse_string(kind, values, order, name)
    if kind not in _NUMBERS or np.dtype(_NUMBERS[kind]).itemsize * count != len(values):
        raise ValueError(f"{name} is of the shape {header.shape}, but holds {len(values):,} bytes")
    numbers = np.frombuffer(values, dtype=order + _NUMBERS[kind])
    return numbers.astype(_CLASSES[header.kind]).reshape(header.shape, order="F")


def _parse_string(kind: int, values: memoryview, order: str, name: str) -> np.ndarray:
    if kind not in _STRINGS:
        raise ValueError(f"{name} is a string in an unknown encoding")
    encoding = _STRINGS[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return np.array(bytes(values).decode(encoding))


def _parse_cells(data: memoryview, header: _Header, order: str, name: str, depth: int) -> np.ndarray:
    count = math.prod(header.shape)
    # Each cell takes eight bytes or more.
    if depth >= MAX_DEPTH or count > len(data) // 8:
        raise ValueError(f"{name} has more cells than the file holds, or more than {MAX_DEPTH} levels of cells")
    cells, offset = np.empty(count, dtype=object), header.end
    for number in range(count):
        kind, content, offset = _parse_element(data, offset, order)
        if kind != _MATRIX:
            raise ValueError(f"{name} has a cell that is not an array")
        # Assigned one by one: numpy would unpack an array of a single value.
        cells[number] = _parse_value(content, order, name, depth + 1) if len(content) else np.empty((0, 0))
    return cells.reshape(header.shape, order="F")
