"""MATLAB's files of version 5 to 7: numbers, texts and cells of these, by a reader of our own.

After MathWorks, "MAT-File Format". SciPy's reader is compiled and trusts what it reads: a damaged file can end the
whole process. Here every length is held against what is there.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_RATIO = 100  # of what a compressed file holds to its own size
MAX_DEPTH = 8  # of cells in cells
_FREE = 2**26  # bytes that need no looking at
_HEAD = 4096  # bytes of a variable in which its name stands

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x08


@dataclass(frozen=True)
class _Head:
    """What a variable says of itself, and the place behind it."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    end: int


def list_variables(path: Path) -> list[str]:
    """The names of the variables in a file. Raises ValueError for a broken or foreign one."""
    return [name for name, _, _ in _variables(path)]


def load_variables(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The variables of these names that are there, as arrays of two dimensions or more.

    Cells are arrays of objects, texts arrays () of str. Raises ValueError for a broken or foreign file, one of version
    7.3, one that unpacks to very much, and for variables of other kinds: structures, sparse and complex matrices.
    """
    return {name: _value(data, order, name) for name, data, order in _variables(path, whole=names) if name in names}


def _variables(path: Path, whole: Collection[str] = ()) -> Iterator[tuple[str, bytes | memoryview, str]]:
    """Name, content and byte order of each variable; of those that are compressed only `whole` ones are whole."""
    data = memoryview(np.memmap(path, np.uint8, "r"))
    if len(data) < 128 or bytes(data[126:128]) not in (b"IM", b"MI"):
        raise ValueError("no MATLAB file of version 5 to 7")
    order = "<" if bytes(data[126:128]) == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version == 0x0200:
        raise ValueError("a MATLAB file of version 7.3, which is not read; save it again with save(..., '-v7')")
    left, place = MAX_RATIO * len(data) + _FREE, 128
    while place < len(data):
        kind, content, place = _element(data, place, order)
        if kind == _COMPRESSED:
            head = _unpacked(content, _HEAD)
            name = _head(memoryview(head), order, 8).name
            if name in whole:
                unpacked = _unpacked(content, left + 1)
                left -= len(unpacked)
                if left < 0:
                    raise ValueError(f"holds more than {MAX_RATIO} times its own {len(data):,} bytes")
                inner, content, _ = _element(memoryview(unpacked), 0, order)
                if inner != _MATRIX:
                    raise ValueError("a compressed element that is no variable")
            yield name, content, order
        elif kind == _MATRIX:
            yield _head(content, order, 0).name, content, order


def _unpacked(content: memoryview, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, most)
    except zlib.error as error:
        raise ValueError(f"a damaged variable ({error})") from None


def _element(data: memoryview, place: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at a place, and the place of the next one."""
    if place + 8 > len(data):
        raise ValueError("cut short")
    kind, size = struct.unpack_from(f"{order}II", data, place)
    if kind >> 16:  # a small one, its content in the tag
        kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if size > 4:
            raise ValueError("a broken tag")
    else:
        start = place + 8
        end = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
    if start + size > len(data):
        raise ValueError("cut short")
    return kind, data[start : start + size], end


def _head(data: memoryview, order: str, place: int) -> _Head:
    _, flags, place = _element(data, place, order)
    _, dimensions, place = _element(data, place, order)
    _, name, place = _element(data, place, order)
    if len(flags) != 8 or len(dimensions) % 4 or not 8 <= len(dimensions) <= 128:
        raise ValueError("a variable with a broken head")
    (told,) = struct.unpack_from(f"{order}I", flags, 0)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if min(shape) < 0:
        raise ValueError(f"a variable of the negative shape {shape}")
    return _Head(told & 0xFF, told >> 8 & 0xFF, shape, bytes(name).decode("latin1"), place)


def _value(data: bytes | memoryview, order: str, name: str, depth: int = 0) -> np.ndarray:
    content = memoryview(data)
    head = _head(content, order, 0)
    count = math.prod(head.shape)
    if head.kind == _CELL:
        return _cells(content, head, count, order, name, depth)
    if head.kind != _CHAR and (head.kind not in _CLASSES or head.flags & _COMPLEX):
        raise ValueError(f"{name} is no plain array of numbers or texts")
    kind, values, _ = _element(content, head.end, order) if count else (2, memoryview(b""), 0)
    if head.kind == _CHAR:
        return _text(kind, values, order, name)
    if kind not in _NUMBERS or np.dtype(_NUMBERS[kind]).itemsize * count != len(values):
        raise ValueError(f"{name} is of the shape {head.shape}, but holds {len(values):,} bytes")
    numbers = np.frombuffer(values, dtype=order + _NUMBERS[kind])
    return numbers.astype(_CLASSES[head.kind]).reshape(head.shape, order="F")


def _text(kind: int, values: memoryview, order: str, name: str) -> np.ndarray:
    if kind not in _TEXTS:
        raise ValueError(f"{name} is a text in an unknown coding")
    coding = _TEXTS[kind] + (("-le" if order == "<" else "-be") if _TEXTS[kind] in ("utf-16", "utf-32") else "")
    return np.array(bytes(values).decode(coding))


def _cells(data: memoryview, head: _Head, count: int, order: str, name: str, depth: int) -> np.ndarray:
    # Each cell takes eight bytes or more.
    if depth >= MAX_DEPTH or count > len(data) // 8:
        raise ValueError(f"{name} has more cells than the file holds, or more than {MAX_DEPTH} one in another")
    cells, place = np.empty(count, dtype=object), head.end
    for number in range(count):
        kind, content, place = _element(data, place, order)
        if kind != _MATRIX:
            raise ValueError(f"{name} has a cell that is no array")
        # Not through numpy, which would unpack an array of one value.
        cells[number] = _value(content, order, name, depth + 1) if len(content) else np.empty((0, 0))
    return cells.reshape(head.shape, order="F")
