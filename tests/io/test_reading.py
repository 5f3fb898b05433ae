"""Errors of the machine and errors in the bytes are kept apart."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from reid.errors import InputError
from reid.io import reading, shards
from reid.io.feature_files import arrays as feature_arrays
from reid.io.feature_files import npz
from reid.io.reading import NotRegularFile, is_machine_error, read_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert read_file(path) == b"content" == read_file(str(path), max_bytes=7)
    with pytest.raises(InputError, match="a: 7 bytes, above the limit of 6"):
        read_file(path, max_bytes=6)


def test_what_could_block_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(NotRegularFile, match="not a file"):
            read_file(path)


class Failing(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # without a name, as from the system call


def test_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    monkeypatch.setattr(reading, "open", lambda *_: Failing(), raising=False)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_file(path)
    assert caught.value.filename == str(path) and caught.value.errno == errno.EIO


@pytest.mark.parametrize("times", [3, 100])
def test_an_interrupted_call_is_repeated_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path, calls = tmp_path / "a", []
    path.write_bytes(b"content")
    real = os.stat

    def interrupted(name: Any, **options: Any) -> os.stat_result:
        calls.append(name)
        if len(calls) <= times:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), str(name))
        return real(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", interrupted)
        if times == 3:
            assert read_file(path) == b"content"
        else:
            with pytest.raises(InterruptedError):
                read_file(path)
    assert len(calls) < 10


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (MemoryError(), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError("out of memory error when reading image file"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: ..."), True),
        (OSError("image file is truncated (3 bytes not processed)"), False),
        (SyntaxError("broken PNG file"), False),
        (ValueError("bad"), False),
    ],
)
def test_which_errors_are_those_of_the_machine(error: Exception, machine: bool) -> None:
    assert is_machine_error(error) is machine


@pytest.mark.parametrize("name", ["features.npy", "features.npz"])
def test_features_that_cannot_be_read_now_are_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for module in (feature_arrays, npz):
        monkeypatch.setattr(module, "load_npy" if module is feature_arrays else "NpzReader", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        feature_arrays._open_array(path) if path.suffix == ".npy" else npz.load_npz(path)
    assert caught.value.filename == str(path)


def test_a_matrix_that_cannot_be_read_now_is_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "matrix.npy"
    path.write_bytes(b"")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(shards, "load_npy", fail)
    with pytest.raises(OSError, match="Too many open files"):
        shards.open_matrix(path)
