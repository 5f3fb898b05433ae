"""Guarantees of the writer: atomic commits, one writer, one model, and lossless compaction."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.search.gallery import Crop, Gallery, Labels, list_crops, manifest, read_snapshot, shard_files, update_index

Vector = Callable[[bytes], np.ndarray]


def crop(name: str, content: bytes) -> tuple[Crop, bytes]:
    return Crop(f"{name}.jpg", len(content), 1, Labels()), content.ljust(32, b"\0")


def filled(path: Path, vector: Vector, count: int = 12, shard: int = 5) -> Gallery:
    gallery = Gallery.create(path, model_id="m", dim=16, shard_size=shard)
    entries = [crop(f"{number:02d}", b"%d" % number) for number in range(count)]
    gallery.commit(entries, {digest: vector(digest) for _, digest in entries})
    return gallery


def stored_rows(path: Path) -> dict[str, bytes]:
    snapshot = read_snapshot(path)
    return {c.path: row.tobytes() for c, row in zip(snapshot.crops, snapshot.read_rows(snapshot.rows), strict=True)}


def test_two_writers_at_once(tmp_path: Path, make_vector: Vector) -> None:
    with (
        filled(tmp_path / "i", make_vector),
        pytest.raises(InputError, match=rf"process {os.getpid()} on .* is writing to this index"),
    ):
        Gallery.open(tmp_path / "i")
    Gallery.open(tmp_path / "i").close()


def test_another_model_is_rejected_with_both_ids(tmp_path: Path, make_vector: Vector) -> None:
    filled(tmp_path / "i", make_vector).close()
    for opened in (Gallery.open, read_snapshot):
        with pytest.raises(InputError, match="built with the model m, not other"):
            opened(tmp_path / "i", model_id="other")  # type: ignore[operator]
        with pytest.raises(InputError, match="features of dimension 16, but the model outputs 8"):
            opened(tmp_path / "i", model_id="m", dim=8)  # type: ignore[operator]
    # A rejected writer releases the lock.
    Gallery.open(tmp_path / "i", model_id="m", dim=16).close()


def test_folders_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such index"):
        read_snapshot(tmp_path / "i")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not an index"):
        read_snapshot(tmp_path / "other")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        Gallery.create(tmp_path / "other", model_id="m", dim=16)
    with pytest.raises(InputError, match="is a file"):
        Gallery.create(tmp_path / "other" / "thesis.tex", model_id="m", dim=16)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="corrupt or not a manifest"):
        read_snapshot(tmp_path / "broken")


def test_an_incomplete_index_is_created_again(tmp_path: Path, make_vector: Vector) -> None:
    (tmp_path / "i" / "features").mkdir(parents=True)
    (tmp_path / "i" / "manifest.sqlite").write_bytes(b"")
    filled(tmp_path / "i", make_vector).close()
    assert len(stored_rows(tmp_path / "i")) == 12


def test_rows_of_another_length_or_dimension_are_rejected(tmp_path: Path, make_vector: Vector) -> None:
    with filled(tmp_path / "i", make_vector) as gallery:
        entry = crop("new", b"new")
        for row, message in (
            (2 * make_vector(b"x"), "not of unit length, the first has length 2"),
            (np.full(16, np.nan), "not of unit length"),
            (make_vector(b"x")[:8], "dimension 8 do not fit an index of dimension 16"),
        ):
            with pytest.raises(InputError, match=message):
                gallery.commit([entry], {entry[1]: row})
    assert len(stored_rows(tmp_path / "i")) == 12


@pytest.mark.parametrize("moment", ["rows", "manifest"])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, make_vector: Vector, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    gallery = filled(tmp_path / "i", make_vector)
    before = stored_rows(tmp_path / "i")
    entry = crop("new", b"new")
    with monkeypatch.context() as patched:
        if moment == "rows":

            def full(descriptor: int) -> None:
                raise OSError(errno.ENOSPC, "no space left")

            patched.setattr(shard_files.os, "fsync", full)
        else:
            # SQLite may not use more pages than it has.
            pages = gallery._connection.execute("PRAGMA page_count").fetchone()[0]
            gallery._connection.execute(f"PRAGMA max_page_count = {pages}")
        many = [entry, *(crop(f"more{n}", b"more%d" % n) for n in range(2000))]
        with pytest.raises(OSError) as raised:
            gallery.commit(many, {digest: make_vector(digest) for _, digest in many})
        assert raised.value.errno == errno.ENOSPC and raised.value.filename
    assert stored_rows(tmp_path / "i") == before
    gallery._connection.execute("PRAGMA max_page_count = 1000000")
    gallery.commit([entry], {entry[1]: make_vector(entry[1])})
    gallery.close()
    assert stored_rows(tmp_path / "i") == before | {"new.jpg": make_vector(entry[1]).tobytes()}
    with Gallery.open(tmp_path / "i") as again:
        assert again.find_corrupt() == []


def test_unreferenced_rows_are_overwritten(tmp_path: Path, make_vector: Vector) -> None:
    with filled(tmp_path / "i", make_vector) as gallery:
        gallery._writer.append(np.stack([make_vector(b"lost")] * 9))
    stray = tmp_path / "i" / "features" / "000001-000000.npy"
    stray.write_bytes(b"left by a killed compaction")
    before = stored_rows(tmp_path / "i")
    assert len(before) == 12
    with Gallery.open(tmp_path / "i") as gallery:
        assert not stray.exists()
        assert sorted(p.name for p in (tmp_path / "i" / "features").iterdir())[-1] == "000000-000002.npy"
        entry = crop("new", b"new")
        gallery.commit([entry], {entry[1]: make_vector(entry[1])})
    assert stored_rows(tmp_path / "i") == before | {"new.jpg": make_vector(entry[1]).tobytes()}
    # The file ends after the last row.
    last = tmp_path / "i" / "features" / "000000-000002.npy"
    assert last.stat().st_size == 128 + 3 * 16 * 4


def test_ctrl_c_after_the_commit_of_a_transaction_loses_nothing(
    tmp_path: Path, make_vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = manifest.write_transaction

    @contextlib.contextmanager
    def interrupted(connection: sqlite3.Connection) -> Iterator[None]:
        with original(connection):
            yield
        raise KeyboardInterrupt  # as a signal that came while the disk was waited for

    new, later = crop("new", b"new"), crop("later", b"later")
    with filled(tmp_path / "i", make_vector) as gallery:
        monkeypatch.setattr(manifest, "write_transaction", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gallery.commit([new], {new[1]: make_vector(new[1])}, deleted=["00.jpg"])
        with pytest.raises(KeyboardInterrupt):
            gallery.compact()
        monkeypatch.setattr(manifest, "write_transaction", original)
        gallery.commit([later], {later[1]: make_vector(later[1])})
        assert gallery.find_corrupt() == []
    stored = stored_rows(tmp_path / "i")
    assert {stored[f"{name}.jpg"] for name in ("new", "later")} == {make_vector(d).tobytes() for _, d in (new, later)}
    with Gallery.open(tmp_path / "i") as gallery:
        assert gallery.find_corrupt() == [] and gallery.compact() == 0


def test_sizes_that_no_index_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot have shard 100000000000000000000"):
        Gallery.create(tmp_path / "i", model_id="m", dim=16, shard_size=10**20)
    Gallery.create(tmp_path / "i", model_id="m", dim=16).close()


def test_removing_compacting_and_restoring(crops: Path, tmp_path: Path, embed: Any, make_vector: Vector) -> None:
    def again() -> None:
        with Gallery.open(tmp_path / "i") as gallery:
            update_index(gallery, list_crops(crops), embed, progress=False)

    Gallery.create(tmp_path / "i", model_id="m", dim=16, shard_size=5).close()
    again()
    before = stored_rows(tmp_path / "i")
    gone = [path for path in before if path.startswith("0001/")]
    with Gallery.open(tmp_path / "i") as gallery:
        gallery.set_removed(gone, removed=True)
    again()
    kept = {path: row for path, row in before.items() if path not in gone}
    assert stored_rows(tmp_path / "i") == kept
    open_snapshot = read_snapshot(tmp_path / "i")
    with Gallery.open(tmp_path / "i") as gallery:
        assert gallery.compact() == 4 and gallery.compact() == 0
        assert gallery.find_corrupt() == []
    assert sorted(p.name for p in (tmp_path / "i" / "features").iterdir()) == ["000001-000000.npy", "000001-000001.npy"]
    assert stored_rows(tmp_path / "i") == kept
    # An open snapshot keeps its state.
    rows = open_snapshot.read_rows(open_snapshot.rows)
    assert {c.path: row.tobytes() for c, row in zip(open_snapshot.crops, rows, strict=True)} == kept
    embed.seen.clear()
    with Gallery.open(tmp_path / "i") as gallery:
        gallery.set_removed(gone, removed=False)
    again()
    assert stored_rows(tmp_path / "i") == before and len(embed.seen) == 4


def test_removed_content_comes_back_without_embedding(crops: Path, tmp_path: Path, embed: Any) -> None:
    with Gallery.create(tmp_path / "i", model_id="m", dim=16) as gallery:
        update_index(gallery, list_crops(crops), embed, progress=False)
        gallery.set_removed(["0001/c1_100.jpg"], removed=True)
        gallery.set_removed(["0001/c1_100.jpg"], removed=False)
    assert len(stored_rows(tmp_path / "i")) == 12 and len(embed.seen) == 12


def test_corrupt_features_are_found(tmp_path: Path, make_vector: Vector) -> None:
    filled(tmp_path / "i", make_vector).close()
    path = tmp_path / "i" / "features" / "000000-000001.npy"
    data = bytearray(path.read_bytes())
    data[128 + 64 + 5] ^= 1  # the second row of the second shard
    path.write_bytes(data)
    with Gallery.open(tmp_path / "i") as gallery:
        assert gallery.find_corrupt() == ["06.jpg"]
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_snapshot(tmp_path / "i")
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        read_snapshot(tmp_path / "i")


def test_readers_see_one_state(tmp_path: Path, make_vector: Vector) -> None:
    with filled(tmp_path / "i", make_vector) as gallery:
        before = read_snapshot(tmp_path / "i")
        entry = crop("00", b"changed")
        gallery.commit([entry], {entry[1]: make_vector(entry[1])}, deleted=["01.jpg"])
        after = read_snapshot(tmp_path / "i")
    assert len(before.crops) == 12 and len(after.crops) == 11
    np.testing.assert_array_equal(before.read_rows(before.rows[:1])[0], make_vector(crop("00", b"0")[1]))
    np.testing.assert_array_equal(after.read_rows(after.rows[:1])[0], make_vector(entry[1]))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_can_be_searched(tmp_path: Path, make_vector: Vector) -> None:
    filled(tmp_path / "i", make_vector).close()
    for path in (tmp_path / "i", *tmp_path.joinpath("i").iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert len(stored_rows(tmp_path / "i")) == 12
        with pytest.raises((InputError, PermissionError)):
            Gallery.open(tmp_path / "i")
    finally:
        (tmp_path / "i").chmod(0o755)


def test_no_permission_to_write(tmp_path: Path, make_vector: Vector) -> None:
    with filled(tmp_path / "i", make_vector) as gallery:
        gallery._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(InputError, match="no permission to write"):
            gallery.set_metadata(pattern="")


def test_another_shard_size_is_rejected(tmp_path: Path, make_vector: Vector) -> None:
    with filled(tmp_path / "i", make_vector) as gallery:
        with pytest.raises(InputError, match="5 rows per shard"):
            gallery.check("m", 16, 6)
        gallery.check("m", 16, 5)
    assert sqlite3.connect(tmp_path / "i" / "manifest.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)
