"""The manifest of an index: a SQLite file with a rollback journal, which a folder that is only read can hold too."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.search.gallery.crops import Crop, Labels

NAME = "manifest.sqlite"
FORMAT = 1
_WAIT = 60.0  # seconds that a reader waits for a commit to end, and a commit for readers

# A content is a picture's bytes, and has one row of features however many paths hold it. One that no image names is a
# tombstone: compacting drops it. A path removed by the user stays as such, with removed = 1, so that it does not come
# back.
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE contents (
    place INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, checksum INTEGER NOT NULL
);
CREATE TABLE images (
    path TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    identity TEXT NOT NULL, camera TEXT NOT NULL, time TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX images_by_digest ON images (digest);
"""


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """SQLite's errors as the machine's or the user's: a full disk, no right to write, a broken file, a busy one."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        path, code = folder / NAME, error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, "no space left", str(path)) from None
        if code == sqlite3.SQLITE_READONLY:
            raise InputError(
                f"{folder}: no right to write there, which is needed to write, and to put right what a process that "
                "was killed left half-written"
            ) from None
        if code == sqlite3.SQLITE_CANTOPEN:
            raise InputError(f"{path}: cannot be opened; no right to read it, or to write beside it") from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InputError(f"{path}: another process has kept it busy for {_WAIT:.0f} s; try again") from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise InputError(f"{path}: broken or no manifest of an index ({error}); index again elsewhere") from None
        raise OSError(errno.EIO, f"{error}", str(path)) from error


def create(folder: Path, about: dict[str, Any]) -> None:
    """Make the manifest of a new index. Killed in here, a process leaves what `is_index` does not take for one."""
    path = folder / NAME
    with told(folder), contextlib.closing(_connect(path, "rwc")) as connection, write(connection):
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        store(connection, {"generation": 0, "version": 0, **about})


def is_index(folder: Path) -> bool:
    """Whether a folder holds a manifest that was written to the end."""
    path = folder / NAME
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with told(folder), contextlib.closing(_connect(path, "rw")) as connection:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0])


def open_manifest(folder: Path) -> sqlite3.Connection:
    """A connection to the manifest of an index. Raises InputError where there is none, or one of another format."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such index; make one with tools/index.py DIR --index {folder}")
    if not is_index(folder):
        raise InputError(f"{folder}: holds no index (no {NAME}); make one with tools/index.py DIR --index {folder}")
    with told(folder):
        connection = _connect(folder / NAME, "rw")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        connection.close()
        raise InputError(f"{folder / NAME}: an index of format {version}, and this is written for {FORMAT}")
    return connection


@contextlib.contextmanager
def write(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction: all of it is on the disk at the end, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def read(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def about(connection: sqlite3.Connection) -> dict[str, Any]:
    """What the index is: model_id, dim, shard, generation, version and what else was stored."""
    rows = connection.execute("SELECT name, value FROM about").fetchall()
    try:
        found = {str(name): json.loads(value) for name, value in rows}
        for name in ("generation", "version", "dim", "shard"):
            found[name] = int(found[name])
        return {**found, "model_id": str(found["model_id"])}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError("the manifest of the index is broken; index again elsewhere") from None


def store(connection: sqlite3.Connection, entries: dict[str, Any]) -> None:
    """Add to or change what `about` gives."""
    connection.executemany(
        "INSERT OR REPLACE INTO about VALUES (?, ?)", [(name, json.dumps(value)) for name, value in entries.items()]
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Mode rw falls back to reading where nothing may be written.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_WAIT, isolation_level=None)
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def read_images(connection: sqlite3.Connection) -> Iterator[tuple[Crop, bytes, bool]]:
    """All images by path: crop, digest of its content, and whether the user removed it."""
    query = "SELECT path, size, changed, identity, camera, time, digest, removed FROM images ORDER BY path"
    for path, size, changed, identity, camera, time, digest, removed in connection.execute(query):
        yield Crop(path, size, changed, Labels(identity, camera, time)), digest, bool(removed)


def count_rows(connection: sqlite3.Connection) -> int:
    """Rows of features that count, tombstones included."""
    return int(connection.execute("SELECT COALESCE(MAX(place) + 1, 0) FROM contents").fetchone()[0])


def check_model(folder: Path, made_by: str, width: int, model_id: str | None, dim: int | None) -> None:
    """Raise InputError where an index was made by another model, or holds features of another width."""
    if model_id is not None and model_id != made_by:
        raise InputError(
            f"{folder}: was made by the model {made_by}, and this is {model_id} (weights, preprocessing, feature and "
            "flip count): use the weights it was made with, or index into another folder"
        )
    if dim is not None and dim != width:
        raise InputError(f"{folder}: holds features of {width} numbers, and this model gives {dim}")


def count_change(connection: sqlite3.Connection) -> None:
    """Raise the version, by which what was built from an earlier state is known."""
    store(connection, {"version": int(about(connection)["version"]) + 1})
