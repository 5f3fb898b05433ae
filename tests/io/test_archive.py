"""A zip is unpacked once, whole or not at all, and never outside its own folder."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import IO

import pytest

from reid.errors import InputError
from reid.io import archive as archive_module
from reid.io.archive import extract_zip

PARTS = ("query", "gt_query")


def pack(path: Path, entries: dict[str, bytes] | None = None, extra: list[zipfile.ZipInfo] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (entries or {"D/query/a.jpg": b"aa", "D/query/b.jpg": b"b"}).items():
            file.writestr(name, content)
        for info in extra or []:
            file.writestr(info, "target")
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_the_parts_asked_for_are_taken(tmp_path):
    source = pack(
        tmp_path / "d.zip",
        {
            "D/query/a.jpg": b"aa",
            "D/gt_query/a_good.mat": b"m",
            "D/gt_bbox/big.jpg": b"x" * 1000,
            "D/readme.txt": b"r",
            "__MACOSX/D/query/._a.jpg": b"mac",
            "D/query/.hidden": b"h",
        },
    )
    folder = extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert files_below(folder) == [".unpacked", "gt_query/a_good.mat", "query/a.jpg"]
    assert (folder / "query" / "a.jpg").read_bytes() == b"aa"


def test_a_second_call_unpacks_nothing_and_a_changed_zip_anew(tmp_path):
    source = pack(tmp_path / "d.zip")
    first = extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    (first / "query" / "a.jpg").write_bytes(b"zz")
    assert extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False) == first
    assert (first / "query" / "a.jpg").read_bytes() == b"zz"
    os.utime(source, ns=(1, 1))
    second = extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert second != first and (second / "query" / "a.jpg").read_bytes() == b"aa"


@pytest.mark.parametrize("damage", ["no mark", "mark of an older version", "lost", "emptied"])
def test_a_folder_that_is_not_whole_is_extracted_again(tmp_path, damage):
    source = pack(tmp_path / "d.zip")
    folder = extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    if damage == "no mark":
        (folder / ".unpacked").unlink()
    elif damage == "mark of an older version":
        (folder / ".unpacked").write_bytes(b"")
    if damage == "emptied":
        (folder / "query" / "a.jpg").write_bytes(b"")
    else:
        (folder / "query" / "a.jpg").unlink()
    assert extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False) == folder
    assert files_below(folder) == [".unpacked", "query/a.jpg", "query/b.jpg"]
    assert (folder / "query" / "a.jpg").read_bytes() == b"aa"


def test_what_killed_processes_left_of_this_archive_is_removed(tmp_path):
    cache = tmp_path / "cache"
    for name in (".d-0123456789ab.0a1b.partial", ".other-0123456789ab.0a1b.partial"):
        (cache / name / "query").mkdir(parents=True)
    folder = extract_zip(pack(tmp_path / "d.zip"), folders=PARTS, cache=cache, progress=False)
    assert sorted(cache.iterdir()) == sorted([cache / ".other-0123456789ab.0a1b.partial", folder])


def test_backslashes_of_windows_separate_folders(tmp_path):
    entries = {"D\\query\\": b"", "D\\query\\below\\": b"", "D\\query\\a.jpg": b"a", "D\\other\\b.jpg": b"b"}
    source = pack(tmp_path / "d.zip", entries)
    folder = extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert files_below(folder) == [".unpacked", "query/a.jpg"]


@pytest.mark.parametrize(
    "name",
    ["D/query/../../../evil.jpg", "/query/evil.jpg", "C:/query/evil.jpg", "D\\query\\..\\evil.jpg", "../evil.txt"],
)
def test_an_entry_that_would_leave_the_folder_refuses_the_zip(tmp_path, name):
    source = pack(tmp_path / "d.zip", {"D/query/a.jpg": b"a", name: b"evil"})
    with pytest.raises(InputError, match="would leave its folder") as caught:
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert repr(name) in str(caught.value)
    assert files_below(tmp_path) == ["d.zip"]


def test_a_link_refuses_the_zip(tmp_path):
    link = zipfile.ZipInfo("D/query/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    source = pack(tmp_path / "d.zip", extra=[link])
    with pytest.raises(InputError, match="link or a device"):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert files_below(tmp_path) == ["d.zip"]


def test_an_encrypted_entry_is_told(tmp_path):
    source = pack(tmp_path / "d.zip", {"D/query/a.jpg": b"a"})
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # general purpose flag of the central directory
    source.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)


def test_bombs_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    source = pack(tmp_path / "d.zip", {f"D/query/{i}.jpg": b"\0" * 10_000 for i in range(5)})
    monkeypatch.setattr(archive_module, "MAX_BYTES", 49_999)
    with pytest.raises(InputError, match="50,000 bytes unpacked, above the limit of 49,999"):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    monkeypatch.setattr(archive_module, "MAX_ENTRIES", 4)
    with pytest.raises(InputError, match="5 entries, above the limit of 4"):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert files_below(tmp_path) == ["d.zip"]


def test_two_entries_for_one_file_and_a_zip_of_something_else_are_refused(tmp_path):
    twice = pack(tmp_path / "twice.zip", {"D/query/a.jpg": b"1", "E/query/a.jpg": b"2"})
    with pytest.raises(InputError, match=r"two entries would become query/a\.jpg"):
        extract_zip(twice, folders=PARTS, cache=tmp_path / "cache", progress=False)
    other = pack(tmp_path / "other.zip", {"D/holiday/a.jpg": b"1"})
    with pytest.raises(InputError, match="contains no folder gt_query or query"):
        extract_zip(other, folders=PARTS, cache=tmp_path / "cache", progress=False)


@pytest.mark.parametrize("damage", ["cut", "content", "no zip"])
def test_a_damaged_zip_leaves_nothing_behind(tmp_path, damage):
    source = pack(tmp_path / "d.zip", {"D/query/a.jpg": bytes(range(256)) * 8, "D/query/b.jpg": b"b" * 50})
    content = bytearray(source.read_bytes())
    if damage == "cut":
        content = content[:-30]
    elif damage == "content":
        start = content.index(b"a.jpg") + 5
        content[start + 40 : start + 80] = b"\xff" * 40
    else:
        content = bytearray(b"plain text")
    source.write_bytes(content)
    with pytest.raises(InputError, match="not a readable zip") as caught:
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert str(source) in str(caught.value)
    assert files_below(tmp_path) == ["d.zip"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    source = pack(tmp_path / "d.zip")
    real = shutil.copyfileobj
    written = []

    def interrupted(packed: IO[bytes], out: IO[bytes], length: int) -> None:
        if written:
            raise KeyboardInterrupt
        real(packed, out, length)
        written.append(out)

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert written and not list((tmp_path / "cache").iterdir())


def test_a_disk_without_room_is_told_with_both_numbers(tmp_path, monkeypatch):
    source = pack(tmp_path / "d.zip", {f"D/query/{i}.jpg": b"x" for i in range(256)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(InputError, match=r"needs 1 MiB in .*cache, which has 1 MiB free"):
        extract_zip(source, folders=PARTS, cache=tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").iterdir())
