"""The manifest of an index: a SQLite file with a rollback journal, which can be read from a read-only folder.

Nothing in it is used before it is verified, because SQLite returns what it finds in a damaged page. The definitions of
the tables must be ours, and the metadata carry a digest of themselves and one of each table, see
`reid.search.gallery.manifest_rows`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.digest import DIGEST_LENGTH, compute_digest
from reid.search.gallery.manifest_entries import find_invalid_entry

MANIFEST_NAME = "manifest.sqlite"
FORMAT_VERSION = 2
FIRST_VERSION = 1  # without digests
_DIGESTS = "digests"  # entry with the digests of the other entries and of the tables
_TIMEOUT = 60.0  # seconds a reader waits for a commit, and a commit for readers
_SYSTEM_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}

# A content is the bytes of an image file. It has one feature row, however many paths hold it. A content
# without an image is a tombstone, which compacting drops. A path removed by the user keeps its entry with removed = 1,
# so that it is not added again.
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


class DamagedManifest(sqlite3.DatabaseError):
    """Content of a manifest that is not as it was written; `translate_errors` adds the path."""


@contextlib.contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Translate SQLite errors inside the context to InputError and OSError.

    Args:
        folder: The folder of the index, for the messages.

    Yields:
        None, once, inside the translation.

    Raises:
        InputError: If permissions are missing, or the manifest is busy or corrupt.
        OSError: If the disk is full, memory is short or another I/O error occurs.
    """
    path = folder / MANIFEST_NAME
    try:
        yield
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter if a message of SQLite quotes damaged bytes
        code = error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
        if code in _SYSTEM_ERRORS:
            raise OSError(_SYSTEM_ERRORS[code], f"{error}", str(path)) from None
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            raise InputError(
                f"{folder}: no permission to write, which is needed to change the index and to repair what a killed "
                "process left behind"
            ) from None
        if code == sqlite3.SQLITE_CANTOPEN:
            raise InputError(
                f"{path}: cannot be opened; no permission to read it or to write to its folder, or too many open files"
            ) from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InputError(f"{path}: locked by another process for {_TIMEOUT:.0f} s; try again") from None
        raise InputError(
            f"{path}: corrupt or not a manifest of an index ({error}); restore the index from a copy, or delete it and "
            "build it again"
        ) from None


def create_manifest(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Create the manifest of a new index; if the process is killed meanwhile, `is_index` stays false.

    Args:
        folder: The folder of the index.
        metadata: `model_id`, `dim`, `shard` and further plain values.
    """
    path = folder / MANIFEST_NAME
    with (
        translate_errors(folder),
        contextlib.closing(_connect(path, "rwc")) as connection,
        write_transaction(connection),
    ):
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        write_metadata(connection, {"generation": 0, "version": 0, **metadata}, {"contents": 0, "images": 0})


def is_index(folder: Path) -> bool:
    """Check whether a folder holds a manifest.

    Args:
        folder: Any folder, which may be missing.

    Returns:
        False if there is no manifest or its creation was interrupted.

    Raises:
        InputError: If the manifest is corrupt, so that nobody takes it for an interrupted creation and replaces it.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with translate_errors(folder), contextlib.closing(_connect(path, "rw")) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0]:
            return True
        # Reading has rolled back what an interrupted creation left, and nothing remains of it.
        if path.stat().st_size == 0:
            return False
        raise DamagedManifest("it has no format version")


def open_manifest(folder: Path) -> sqlite3.Connection:
    """Open the manifest of an index.

    Args:
        folder: The folder of the index.

    Returns:
        A connection without implicit transactions.

    Raises:
        InputError: If there is no index, its tables are not ours, or it has a different format version.
    """
    advice = f"create one with svdnet index DIR --index {folder}"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such index; {advice}")
    if not is_index(folder):
        raise InputError(f"{folder}: not an index (no {MANIFEST_NAME}); {advice}")
    with translate_errors(folder):
        connection = _connect(folder / MANIFEST_NAME, "rw")
        try:
            version = format_version(connection)
            if not FIRST_VERSION <= version <= FORMAT_VERSION:
                raise InputError(
                    f"{folder / MANIFEST_NAME}: index format {version} is not supported, expected {FORMAT_VERSION}"
                )
            if _definitions(connection) != _expected_definitions():
                raise DamagedManifest("its tables are not those of an index")
        except BaseException:
            connection.close()
            raise
    return connection


def format_version(connection: sqlite3.Connection) -> int:
    """Read the version of the format.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        `FORMAT_VERSION`, or `FIRST_VERSION` for an index without digests.
    """
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_structure(connection: sqlite3.Connection) -> None:
    """Check all pages, tables and their lookup structures, which only changing the manifest relies on.

    It takes 0.5 s per 100,000 images.

    Args:
        connection: A connection from `open_manifest`.

    Raises:
        DamagedManifest: If anything is inconsistent.
        OSError: If a page cannot be read now.
    """
    message = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    code = re.search(r"error code=(\d+)", message)
    if code and int(code[1]) & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
        raise OSError(errno.EIO, " ".join(message.split()), MANIFEST_NAME)
    if message != "ok":
        raise DamagedManifest(" ".join(message.split()))


@contextlib.contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction that is fully on the disk afterwards, or not at all.

    Args:
        connection: A connection from `open_manifest`.

    Yields:
        None, once, inside the transaction; it is rolled back after an error.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def load_metadata(connection: sqlite3.Connection) -> dict[str, Any]:
    """Load and verify the metadata of an index.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        `model_id`, `dim`, `shard` (rows per file), `generation`, `version` and other stored entries.

    Raises:
        DamagedManifest: If an entry is missing, of the wrong type or not as it was written.
    """
    entries, _ = _read_entries(connection)
    try:
        metadata = {name: json.loads(text) for name, text in entries.items()}
    except (ValueError, RecursionError):
        raise DamagedManifest("an entry is no JSON") from None
    invalid = find_invalid_entry(metadata)
    if invalid:
        raise DamagedManifest(f"its entry {invalid} is missing or invalid")
    return metadata


def load_digests(connection: sqlite3.Connection) -> dict[str, int]:
    """Load the digests of the tables.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        Digest by name of the table; empty if the index has none yet.

    Raises:
        DamagedManifest: If the metadata are not as they were written.
    """
    return _read_entries(connection)[1]


def write_metadata(connection: sqlite3.Connection, metadata: Mapping[str, Any], digests: Mapping[str, int]) -> None:
    """Write all metadata.

    Args:
        connection: A connection inside `write_transaction`.
        metadata: Plain values by name.
        digests: Digests of the tables, by name.
    """
    entries, text = {name: json.dumps(value) for name, value in metadata.items()}, json.dumps(digests)
    entries |= {_DIGESTS: f"{_digest_entries(entries, text)} {text}"}
    connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", entries.items())


def store_metadata(
    connection: sqlite3.Connection, entries: Mapping[str, Any], digests: Mapping[str, int] | None = None
) -> None:
    """Add or replace entries of the metadata.

    Args:
        connection: A connection inside `write_transaction`.
        entries: Plain values by name.
        digests: New digests of tables; None if the tables have not changed.
    """
    write_metadata(
        connection, {**load_metadata(connection), **entries}, load_digests(connection) if digests is None else digests
    )


def increment_version(connection: sqlite3.Connection, digests: Mapping[str, int]) -> None:
    """Increment the version, by which a FAISS index of an earlier state is detected.

    Args:
        connection: A connection inside `write_transaction`.
        digests: New digests of tables, by name.
    """
    store_metadata(connection, {"version": int(load_metadata(connection)["version"]) + 1}, digests)


def check_model(place: object, metadata: Mapping[str, Any], model_id: str | None, dim: int | None) -> None:
    """Check that an index was built by a given model.

    Args:
        place: The folder or collection of the index, for the messages.
        metadata: The metadata of the index.
        model_id: The id of the model; None to accept any.
        dim: The feature dimension of the model; None to accept any.

    Raises:
        InputError: If the model or the feature dimension differs.
    """
    if model_id is not None and model_id != metadata["model_id"]:
        raise InputError(
            f"{place}: was built with the model {metadata['model_id']}, not {model_id} (an id covers weights, "
            "preprocessing, feature and flip); use the weights it was built with, or another --index"
        )
    if dim is not None and dim != metadata["dim"]:
        raise InputError(f"{place}: holds features of dimension {metadata['dim']}, but the model outputs {dim}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Mode rw falls back to read-only access without write permission.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT, isolation_level=None)
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _definitions(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return sorted(tuple(" ".join(str(text).split()) for text in row) for row in rows)


@functools.cache
def _expected_definitions() -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES)
        return _definitions(connection)


def _read_entries(connection: sqlite3.Connection) -> tuple[dict[str, str], dict[str, int]]:
    """Return the texts of the verified entries and the digests of the tables."""
    rows = connection.execute("SELECT name, value FROM about").fetchall()
    if not all(isinstance(name, str) and isinstance(text, str) for name, text in rows):
        raise DamagedManifest("an entry is no text")
    entries: dict[str, str] = dict(rows)
    seal = entries.pop(_DIGESTS, None)
    if format_version(connection) == FIRST_VERSION:
        if seal is not None:
            raise DamagedManifest("its format version is not that of its entries")
        return entries, {}
    expected, _, text = (seal or "").partition(" ")
    if len(entries) + 1 != len(rows) or len(expected) != DIGEST_LENGTH or expected != _digest_entries(entries, text):
        raise DamagedManifest("its entries do not match their digest")
    try:
        digests = json.loads(text)
    except (ValueError, RecursionError):
        digests = None
    if not isinstance(digests, dict) or not all(type(value) is int for value in digests.values()):
        raise DamagedManifest("its digests are invalid")
    return entries, digests


def _digest_entries(entries: Mapping[str, str], digests: str) -> str:
    return compute_digest(json.dumps([sorted(entries.items()), digests]).encode())
