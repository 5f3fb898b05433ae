"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from reid.io import atomic
from reid.io.atomic import (
    atomic_file,
    atomic_folder,
    is_whole,
    link_or_copy,
    make_folder,
    write_bytes,
    write_json,
    write_text,
)
from reid.io.locks import hold_open


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


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_file(path) as first:
        first.write(b"1")
        with atomic_file(path) as second:
            assert second.name != first.name
            second.write(b"2")
        assert path.read_bytes() == b"2"
        first.write(b"1")
    assert path.read_bytes() == b"11" and list(tmp_path.iterdir()) == [path]


def test_a_writer_that_has_ended_removes_nothing_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original = tmp_path / "a.bin", os.replace
    with contextlib.ExitStack() as later:

        def replace(source: str, target: Path) -> None:
            original(source, target)
            monkeypatch.setattr(os, "replace", original)
            later.enter_context(atomic_file(path)).write(b"second")

        monkeypatch.setattr(os, "replace", replace)
        write_bytes(path, b"first")
    assert path.read_bytes() == b"second"


def test_a_file_that_was_renamed_meanwhile_frees_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original = tmp_path / "a.bin", atomic.hold
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(atomic_file(path)).write(b"first")

        def hold(temporary: Path) -> int:  # opens the file of the first, locks it when that has become `path`
            monkeypatch.setattr(atomic, "hold", original)
            descriptor = os.open(temporary, os.O_RDWR)
            first.close()
            second.enter_context(atomic_file(path)).write(b"second")
            hold_open(descriptor)
            return descriptor

        monkeypatch.setattr(atomic, "hold", hold)
        write_bytes(path, b"third")
    assert path.read_bytes() == b"second"


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.bin.writing").write_bytes(b"half")
    write_bytes(tmp_path / "a.bin", b"whole")
    assert (tmp_path / "a.bin").read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
    os.mkfifo(tmp_path / ".a.bin.writing")
    write_bytes(tmp_path / "a.bin", b"again")
    assert (tmp_path / "a.bin").read_bytes() == b"again" and len(list(tmp_path.iterdir())) == 1


def test_without_locks_files_and_folders_are_written_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    write_bytes(tmp_path / "a.bin", b"whole")
    (tmp_path / ".made.0000.partial").mkdir()
    with atomic_folder(tmp_path / "made", "mark") as partial:
        (partial / "in").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.0000.partial", "a.bin", "made"]


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "made", "mark") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "made").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "made", "mark") as partial:
        (partial / "file").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_folder_of_a_faster_process_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made", "mark") as partial:
        (partial / "file").write_text("slow")
        with atomic_folder(tmp_path / "made", "mark") as other:  # does not take the first for abandoned
            (other / "file").write_text("fast")
    assert (tmp_path / "made" / "file").read_text() == "fast"
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".made.1.partial"  # by process number, as older versions named it
    (left / "in").mkdir(parents=True)
    (left / "in" / "file").write_text("half")
    (tmp_path / ".other.1.partial").mkdir()
    with atomic_folder(tmp_path / "made", "mark"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1.partial", "made"]


@pytest.mark.parametrize("damage", ["lost", "emptied", "added", "moved", "mark", "no mark", "older mark", "nothing"])
def test_a_folder_is_whole_only_with_all_its_files(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "made"
    with atomic_folder(folder, "mark", {"seed": 3}) as partial:
        (partial / "in").mkdir()
        (partial / "in" / "a").write_text("a")
        (partial / "in" / "b").write_text("bb")
    assert is_whole(folder, "mark") and json.loads((folder / "mark").read_text())["seed"] == 3
    for name in (".DS_Store", "in/.DS_Store", "notes.txt"):  # of other programs
        (folder / name).write_text("")
    if damage == "lost":
        (folder / "in" / "a").unlink()
    elif damage == "emptied":
        (folder / "in" / "a").write_text("")
    elif damage == "added":
        (folder / "in" / "c").write_text("")
    elif damage == "moved":
        (folder / "in" / "a").rename(folder / "in" / "A")
    elif damage == "mark":
        (folder / "mark").write_text("{")
    elif damage == "no mark":
        (folder / "mark").unlink()
    elif damage == "older mark":
        (folder / "mark").write_text("")
    assert is_whole(folder, "mark") is (damage == "nothing")


def test_new_folders_are_flushed_in_their_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("reid.io.atomic.sync_folder", synced.append)
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == [tmp_path, tmp_path / "a"]


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    if call == "unlink":
        (tmp_path / ".a.writing").write_bytes(b"left by a killed process")

    def fail(*arguments: object, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), *arguments[:1] if call != "fsync" else ())

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError) as caught:
        write_bytes(path, b"2")
    assert caught.value.filename == str(path) and caught.value.errno == errno.EIO
    assert path.read_bytes() == b"1"
