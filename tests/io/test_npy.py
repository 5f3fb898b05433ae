"""What a header or a zip claims is held against the file before memory is taken for it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from reid.io.npy import NpzReader, load_npy


def headed(shape: str, kind: str = "'<f4'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


def test_arrays_come_as_they_were_saved(tmp_path: Path) -> None:
    numbers = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "a.npy", numbers.T)
    np.savez_compressed(tmp_path / "a.npz", x=numbers, y=np.array(["a", "b"]), z=np.zeros((0, 3)))
    np.testing.assert_array_equal(load_npy(tmp_path / "a.npy"), numbers.T)
    assert isinstance(load_npy(tmp_path / "a.npy", mmap_mode="r"), np.memmap)
    with NpzReader(tmp_path / "a.npz") as arrays:
        assert list(arrays) == ["x", "y", "z"] and len(arrays) == 3
        np.testing.assert_array_equal(arrays["x"], numbers)
        assert arrays["y"].tolist() == ["a", "b"] and arrays["z"].shape == (0, 3)
        with pytest.raises(KeyError):
            arrays["w"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (headed("(1000000000000, 512)"), "claims 2,048,000,000,000,000 bytes, the file holds 64"),
        (headed("(-4, -4)"), "negative"),
        (headed("(4,)", "'|O'"), "pickled"),
        (headed("(" * 300), ""),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"x", ""),
    ],
    ids=["large", "negative", "objects", "parentheses", "version", "short"],
)
def test_a_header_that_cannot_be(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        load_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", data)
    with NpzReader(tmp_path / "a.npz") as arrays, pytest.raises(ValueError):
        arrays["x"]


def test_a_small_zip_of_very_many_zeros(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(100 * 2**20, np.uint8))
    with pytest.raises(ValueError, match=r"uncompressed size 104,857,\d+ exceeds \d+ times the file size 1\d\d,\d+"):
        NpzReader(tmp_path / "a.npz")
