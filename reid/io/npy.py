"""NumPy's `.npy` and `.npz` files, read without pickles and with their claims compared with their size.

A header of a hundred bytes can claim an array of any size, and a compressed array can be a thousand times its file.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from reid.io.reading import names_file
from reid.io.sealing import MARK, check_seal

MAX_RATIO = 100  # of the unpacked to the compressed size; features of zeros and ones stay below it
_UNCHECKED_BYTES = 2**26  # unpacked sizes up to this are harmless
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@names_file
def load_npy(path: Path, *, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Load an array from a `.npy` file.

    Args:
        path: `.npy` file, possibly from an untrusted source.
        mmap_mode: "r" for a read-only memory map, None to read into memory.

    Returns:
        Array of the stored shape and dtype, read-only if mapped.

    Raises:
        ValueError: If the file is corrupt, truncated, or not a `.npy` file of plain values.
    """
    try:
        with open(path, "rb") as file:
            shape, dtype = _read_header(file)
            available, claimed = path.stat().st_size - file.tell(), _nbytes(shape, dtype)
        if claimed > available:
            raise ValueError(f"the header claims {claimed:,} bytes, the file holds {available:,}")
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:  # a header is a Python literal, which can be wrong in any way
        raise ValueError(f"a corrupt header ({type(error).__name__})") from None


class NpzReader(Mapping[str, np.ndarray]):
    """The arrays of a `.npz` file by name; each is read when it is looked up.

    Opening and looking up raise ValueError as `load_npy` does; opening also compares the file with its digest, if it
    has one (see `reid.io.sealing`). Also a context manager, which closes the file.

    Args:
        path: `.npz` file, possibly from an untrusted source.
    """

    def __init__(self, path: Path) -> None:
        sealed = check_seal(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"not a zip archive ({type(error).__name__})") from None
        if not sealed and self._zip.comment.startswith(MARK):
            self._zip.close()
            raise ValueError("the digest at its end is incomplete, so the file was cut short")
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in self._zip.infolist()}
        if len(self._entries) < len(self._zip.infolist()):
            self._zip.close()
            raise ValueError("two arrays have the same name")
        unpacked, size = sum(entry.file_size for entry in self._zip.infolist()), path.stat().st_size
        if unpacked > MAX_RATIO * size + _UNCHECKED_BYTES:
            self._zip.close()
            raise ValueError(f"uncompressed size {unpacked:,} exceeds {MAX_RATIO} times the file size {size:,}")
        try:
            for entry in self._entries.values():  # compares the two places where an archive holds the name of an entry
                self._zip.open(entry).close()
        except Exception as error:
            self._zip.close()
            if isinstance(error, OSError | MemoryError):
                raise
            raise ValueError(f"{entry.filename} is corrupt ({type(error).__name__})") from None

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
            raise ValueError(f"{name} is compressed by a method that NumPy does not use")
        try:
            with self._zip.open(entry) as file:
                shape, dtype = _read_header(file)
                available, claimed = entry.file_size - file.tell(), _nbytes(shape, dtype)
            if claimed != available:
                raise ValueError(f"the header of {name} claims {claimed:,} bytes of {available:,}")
            with self._zip.open(entry) as file:
                return npy.read_array(file, allow_pickle=False)
        except (OSError, MemoryError, ValueError):
            raise
        except Exception as error:  # a corrupt zip, or a header that is wrong in any way
            raise ValueError(f"{name} is corrupt ({type(error).__name__})") from None


def _read_header(file: IO[bytes] | Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; the file is at the values afterwards."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"an unknown version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of objects, which are pickled")
    return shape, dtype


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    if any(side < 0 for side in shape):
        raise ValueError(f"a negative shape {shape}")
    return math.prod(shape) * dtype.itemsize
