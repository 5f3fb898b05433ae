"""Zips of data sets: what is unpacked stays in its folder, is bounded, and is whole or not there."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

from fuzz.harness import TEXTS, attempt, fuzz, mutated
from hypothesis import strategies as st

from reid.io.archive import extract_zip

PARTS = ("query", "bounding_box_train")


def packed(entries: list[tuple[str, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


GOOD = [("D/query/a.jpg", b"a" * 300), ("D/query/b.jpg", b"b"), ("D/bounding_box_train/c.jpg", bytes(range(256)))]
ZIPS = [packed(GOOD, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]


def unpacked(folder: Path, data: bytes, target: str) -> None:
    """Unpack, and find everything that is new on the disk inside the cache."""
    shutil.rmtree(folder / "inside", ignore_errors=True)
    archive = folder / "inside" / "d.zip"
    archive.parent.mkdir()
    archive.write_bytes(data)
    cache = folder / "inside" / "cache"
    found = attempt(target, lambda: extract_zip(archive, folders=PARTS, cache=cache, progress=False))
    assert sorted(path.name for path in folder.iterdir()) == ["inside"]
    assert {path.name for path in (folder / "inside").iterdir()} <= {"d.zip", "cache"}
    below = list(cache.rglob("*")) if cache.is_dir() else []
    assert not any(path.is_symlink() for path in below)
    if found is None:
        assert not below, "a refused zip leaves nothing behind"
    else:
        assert all(path == found or found in path.parents for path in below)
        assert all(len(path.relative_to(found).parts) <= 2 for path in below)


@fuzz(mutated(*ZIPS))
def test_mutated_zips(tmp_path: Path, data: bytes) -> None:
    unpacked(tmp_path, data, "zips: mutated")


def names() -> st.SearchStrategy[str]:
    pieces = st.sampled_from(
        ["query", "bounding_box_train", "..", ".", "", "D", "a.jpg", "\\", ":", "C:", "~", *TEXTS[:16]]
    )
    return st.one_of(st.lists(pieces, max_size=6).map("/".join), st.text(st.characters(codec="utf-8"), max_size=20))


@st.composite
def entries(draw: Any) -> bytes:
    """A zip of any names, kinds of files, flags and claimed sizes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in [*draw(st.lists(names(), max_size=5)), "D/query/good.jpg"]:
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "D/query/x")
            kinds = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, 0)
            info.external_attr = (draw(st.sampled_from(kinds)) | 0o777) << 16
            info.compress_type = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
            file.writestr(info, draw(st.sampled_from((b"", b"target", b"../../outside", b"\0" * 5000))))
    data = bytearray(buffer.getvalue())
    place = data.rfind(b"PK\x01\x02")
    offset, width = draw(st.sampled_from(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (38, 4), (42, 4))))
    if draw(st.booleans()):
        data[place + offset : place + offset + width] = draw(st.binary(min_size=width, max_size=width))
    if draw(st.integers(0, 9)) == 0:  # a file name that is not in the coding it says
        data = data.replace(b"good", b"\xff\xfe\xfd\xfc")
        flags = struct.unpack_from("<H", data, place + 8)[0]
        struct.pack_into("<H", data, place + 8, flags | 0x800)
    return bytes(data)


@fuzz(entries())
def test_zips_of_any_entries(tmp_path: Path, data: bytes) -> None:
    unpacked(tmp_path, data, "zips: entries")
