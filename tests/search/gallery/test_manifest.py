"""What a damaged, older or incomplete index does: nothing is used, changed or removed before it is verified."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.errors import InputError
from reid.search.gallery import (
    Crop,
    Gallery,
    Labels,
    build_faiss_index,
    check_tool_entries,
    has_current_faiss_index,
    is_faiss_index_intact,
    is_index,
    load_faiss_index,
    manifest,
    read_metadata,
    read_snapshot,
    select_search,
)

Vector = Callable[[bytes], np.ndarray]


@pytest.fixture
def index(tmp_path: Path, make_vector: Vector) -> Path:
    digests = [b"%d" % number * 16 for number in range(10, 22)]
    crops = [(Crop(f"{d[:2].decode()}.jpg", 9, 1, Labels("1", str(d[1] % 3), "")), d) for d in digests]
    with Gallery.create(tmp_path / "i", model_id="m", dim=16, shard_size=5) as gallery:
        gallery.commit(crops, {digest: make_vector(digest) for digest in digests})
    return tmp_path / "i"


def change(index: Path, *statements: str) -> None:
    with closing(sqlite3.connect(index / "manifest.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET camera = '2' WHERE path = '10.jpg'",
        "UPDATE images SET removed = 1 WHERE path = '10.jpg'",
        "DELETE FROM images WHERE path = '10.jpg'",
        "UPDATE images SET size = NULL",  # refused by SQLite
        "UPDATE contents SET checksum = checksum + 1 WHERE place = 3",
        "DELETE FROM contents WHERE place = 11",
        "DELETE FROM contents",
        "UPDATE about SET value = '1' WHERE name = 'generation'",
        "DELETE FROM about WHERE name = 'digests'",
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 0",
    ],
)
def test_a_changed_row_is_refused_and_nothing_is_removed(index: Path, statement: str) -> None:
    if "NULL" in statement:
        with pytest.raises(sqlite3.IntegrityError):
            change(index, statement)
        return
    change(index, statement)
    before = content(index)
    for use in (read_snapshot, Gallery.open, lambda path: Gallery.create(path, model_id="m", dim=16)):
        with pytest.raises(InputError, match=r"manifest\.sqlite: corrupt|already holds an index"):
            use(index)  # type: ignore[operator]
    assert content(index) == before


def test_the_metadata_are_verified_without_the_tables(index: Path) -> None:
    assert read_metadata(index)["version"] == 1
    change(index, "UPDATE about SET value = '2' WHERE name = 'version'")
    with pytest.raises(InputError, match="do not match their digest"):
        read_metadata(index)


@pytest.mark.parametrize("manifest_left", [True, False])
def test_features_without_a_manifest_are_not_removed(index: Path, manifest_left: bool) -> None:
    if manifest_left:
        (index / "manifest.sqlite").write_bytes(b"")
    else:
        (index / "manifest.sqlite").unlink()
    before = content(index / "features")
    assert not is_index(index)
    with pytest.raises(InputError, match=r"holds features, but manifest\.sqlite is missing or empty"):
        Gallery.create(index, model_id="m", dim=16)
    assert content(index / "features") == before and len(before) == 3


def test_an_index_without_digests_is_read_and_upgraded(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = read_snapshot(index)
    change(index, "DELETE FROM about WHERE name = 'digests'", "PRAGMA user_version = 1")
    with caplog.at_level(logging.WARNING):
        snapshot = read_snapshot(index)
    assert snapshot.crops == expected.crops and "has no digests" in caplog.text
    caplog.clear()
    Gallery.open(index).close()
    assert read_snapshot(index).crops == expected.crops and not caplog.text
    change(index, "UPDATE images SET camera = '2' WHERE path = '10.jpg'")
    with pytest.raises(InputError, match="its images do not match their digest"):
        read_snapshot(index)


def test_digests_follow_every_change(index: Path, make_vector: Vector) -> None:
    random = np.random.default_rng(0)
    paths = [f"{number}.jpg" for number in range(5, 30)]
    with Gallery.open(index) as gallery:
        for step in range(30):
            chosen = random.choice(paths, size=4).tolist()
            digest = b"%032d" % step
            labels = Labels(str(step))
            kind = step % 4
            if kind == 0:
                # A path that is added twice, or added and deleted.
                crops = [(Crop(path, 1, step, labels), digest) for path in chosen]
                gallery.commit(crops, {digest: make_vector(digest)}, deleted=chosen[:1])
            elif kind == 1:
                gallery.commit(deleted=chosen)
            elif kind == 2:
                gallery.set_removed(chosen, removed=step % 3 == 0)
            else:
                gallery.compact()
            read_snapshot(index)
            assert gallery.find_corrupt() == []


def test_features_are_verified_before_their_first_use(index: Path) -> None:
    path = index / "features" / "000000-000001.npy"
    data = bytearray(path.read_bytes())
    data[128 + 64 + 5] ^= 1  # row 6
    path.write_bytes(data)
    snapshot = read_snapshot(index)
    assert snapshot.read_rows(np.array([5, 7])).shape == (2, 16)
    for rows in (snapshot.rows, np.array([6])):
        with pytest.raises(InputError, match=r"1 feature rows do not match their checksums, first that of 16\.jpg"):
            snapshot.read_rows(rows)


def test_a_damaged_faiss_index_is_never_parsed_and_rebuilt(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    with Gallery.open(index) as gallery:
        build_faiss_index(gallery, kind="flat")
        gallery.set_metadata(faiss_beyond=3)
    (path,) = index.glob("faiss-*.index")
    whole = path.read_bytes()
    for position in (0, 7, len(whole) // 2, len(whole) - 1):
        data = bytearray(whole)
        data[position] ^= 4
        path.write_bytes(data)
        snapshot = read_snapshot(index)
        assert has_current_faiss_index(snapshot) and not is_faiss_index_intact(snapshot)
        with monkeypatch.context() as patched:
            patched.setattr(faiss, "read_index", lambda *arguments: pytest.fail("parsed"))
            with pytest.raises(InputError, match="its digest is not that of the manifest; build one with"):
                select_search(snapshot)
    # An entry without a digest, of an earlier version of the program: exact search, until the next indexing.
    path.write_bytes(whole)
    with Gallery.open(index) as gallery:
        gallery.set_metadata(faiss={k: v for k, v in gallery.metadata()["faiss"].items() if k != "sha256"})
    snapshot = read_snapshot(index)
    assert not has_current_faiss_index(snapshot) and select_search(snapshot)[0] is None
    with pytest.raises(InputError, match="outdated"):
        load_faiss_index(snapshot)


def test_leftovers_of_killed_processes_are_removed(index: Path) -> None:
    for name in ("faiss-7.index", ".faiss-8.index.writing", "features/000003-000000.npy"):
        (index / name).write_bytes(b"left")
    before = content(index)
    Gallery.open(index).close()
    assert set(before) - set(content(index)) == {"faiss-7.index", ".faiss-8.index.writing", "000003-000000.npy"}


@pytest.mark.parametrize(
    "entries",
    [
        {"dim": 0}, {"dim": "16"}, {"generation": -1}, {"generation": 1.5}, {"shard": 2**80}, {"model_id": None},
        {"root": 5}, {"flip": "no"}, {"faiss_beyond": "5"}, {"faiss": []}, {"faiss": {"file": "../../x"}},
    ],
)  # fmt: skip
def test_entries_of_the_wrong_type(index: Path, entries: dict[str, Any]) -> None:
    with closing(manifest.open_manifest(index)) as connection:
        manifest.store_metadata(connection, entries)
    for use in (read_metadata, read_snapshot, Gallery.open):
        with pytest.raises(InputError, match=rf"its entry {next(iter(entries))} is missing or invalid"):
            use(index)  # type: ignore[operator]


def test_an_index_of_the_library_does_not_name_its_model(index: Path) -> None:
    with pytest.raises(InputError, match=r"does not say its root and weights and feature and flip; .* --weights FILE"):
        check_tool_entries(index, read_metadata(index))
