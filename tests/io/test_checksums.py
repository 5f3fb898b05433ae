"""Checksums next to files: what they refuse, and what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reid.errors import InputError
from reid.io.checksums import check_checksum, is_finished, write_with_checksum
from reid.io.shards import open_shards, save_matrix


def test_a_changed_file_is_neither_finished_nor_read(tmp_path: Path) -> None:
    for name in ("a.npy", "a.csv"):
        path = tmp_path / name
        write_with_checksum(path, b"content", rows=3)
        assert is_finished(path)
        check_checksum(path)
        path.write_bytes(b"contend")
        assert not is_finished(path)
        with pytest.raises(InputError, match=rf"{name}: corrupt: it does not match its checksum in {name[:2]}"):
            check_checksum(path)
        write_with_checksum(path, b"contend")
        assert is_finished(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.csv.json", "a.json", "a.npy"]


@pytest.mark.parametrize("other", ["", "[" * 100_000, "[1]", "{}", '{"crc32": "1"}', '{"name": "of another program"}'])
def test_any_other_json_file_is_no_checksum(tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"content")
    check_checksum(path)
    (tmp_path / "a.json").write_text(other)
    check_checksum(path)
    assert not is_finished(path)


def test_a_write_that_fails_leaves_no_wrong_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    write_with_checksum(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid.io.checksums.write_json", full)
    with pytest.raises(OSError):
        write_with_checksum(path, b"new")
    check_checksum(path)
    assert path.read_bytes() == b"new" and not is_finished(path)


def test_shards_are_compared_with_their_checksums(tmp_path: Path) -> None:
    save_matrix(tmp_path / "0.npy", np.zeros((2, 3), np.float32))
    save_matrix(tmp_path / "1.npy", np.ones((2, 3), np.float32))
    assert json.loads((tmp_path / "0.json").read_text())["rows"] == 2
    assert len(open_shards(tmp_path)) == 4
    with open(tmp_path / "1.npy", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x40")
    with pytest.raises(InputError, match=r"1\.npy: corrupt"):
        open_shards(tmp_path)
