"""NumPy's `.npy` and `.npz` files, read without a pickle and with what they claim held against what they are.

A header of a hundred bytes can claim an array of any size, and a compressed one can be a thousandth of what it holds.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

MAX_RATIO = 100  # of what a compressed file holds to its own size; features of zeros and ones stay below it
_FREE = 2**26  # bytes that need no looking at
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def load_npy(path: Path, *, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """The array of an `.npy` file. Raises ValueError for any other file, broken ones too."""
    try:
        with open(path, "rb") as file:
            shape, dtype = _header(file)
            held, claimed = path.stat().st_size - file.tell(), _bytes(shape, dtype)
        if claimed > held:
            raise ValueError(f"the header claims {claimed:,} bytes, the file holds {held:,}")
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:  # a header is a Python literal, which can be wrong in any way
        raise ValueError(f"a broken header ({type(error).__name__})") from None


class NpzReader(Mapping[str, np.ndarray]):
    """The arrays of an `.npz` file, each read when it is asked for. Raises ValueError as `load_npy` does."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"no zip ({type(error).__name__})") from None
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in self._zip.infolist()}
        held, size = sum(entry.file_size for entry in self._zip.infolist()), path.stat().st_size
        if held > MAX_RATIO * size + _FREE:
            self._zip.close()
            raise ValueError(f"{held:,} bytes unpacked in a file of {size:,}")

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry.compress_type not in _COMPRESSIONS:
            raise ValueError(f"{name} is packed in a way that numpy does not")
        try:
            with self._zip.open(entry) as file:
                shape, dtype = _header(file)
                held, claimed = entry.file_size - file.tell(), _bytes(shape, dtype)
            if claimed != held:
                raise ValueError(f"the header of {name} claims {claimed:,} bytes of {held:,}")
            with self._zip.open(entry) as file:
                return npy.read_array(file, allow_pickle=False)
        except (OSError, MemoryError, ValueError):
            raise
        except Exception as error:  # a broken zip, or a header that is wrong in any way
            raise ValueError(f"{name} is broken ({type(error).__name__})") from None


def _header(file: IO[bytes] | Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; the file stands at the values afterwards."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"an unknown version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of objects, which are pickled")
    return shape, dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    if any(side < 0 for side in shape):
        raise ValueError(f"a negative shape {shape}")
    return math.prod(shape) * dtype.itemsize
