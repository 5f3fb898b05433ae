"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reid.io.atomic import atomic_file, atomic_folder, link_or_copy, write_bytes, write_json, write_text


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert Path(file.name) == tmp_path / ".a.bin.writing"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", [True, False])
def test_an_error_leaves_the_old_content_alone(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "a.bin"
    if existing:
        path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"] * existing


def test_a_full_disk_leaves_the_old_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_existing_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / ".a.txt.writing").symlink_to(tmp_path / "other")
    write_text(tmp_path / "a.txt", "ä")
    assert (tmp_path / "other").read_text() == "mine"
    assert (tmp_path / "a.txt").read_bytes() == "ä".encode() and not (tmp_path / "a.txt").is_symlink()


def test_json_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  1\n ]\n}\n'


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_kept_under_a_second_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"1")
    for _ in range(2):  # the second time both names may be one file already
        link_or_copy(source, target)
        assert target.read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 2
    write_bytes(source, b"2")
    assert target.read_bytes() == b"1"


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "made") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "made").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "made") as partial:
        (partial / "file").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_folder_of_a_faster_process_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made") as partial:
        (partial / "file").write_text("slow")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "file").write_text("fast")
    assert (tmp_path / "made" / "file").read_text() == "fast"
    assert len(list(tmp_path.iterdir())) == 1
