"""The manifest of an index: a SQLite file with a rollback journal, which can be read from a read-only folder."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.search.gallery.crops import Crop, Labels

MANIFEST_NAME = "manifest.sqlite"
FORMAT_VERSION = 1
_TIMEOUT = 60.0  # seconds a reader waits for a commit, and a commit for readers

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


@contextlib.contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Translate SQLite errors inside the context to InputError and OSError.

    Args:
        folder: The folder of the index, for the messages.

    Yields:
        None, once, inside the translation.

    Raises:
        InputError: If permissions are missing, or the manifest is busy or corrupt.
        OSError: If the disk is full or another I/O error occurs.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        path, code = folder / MANIFEST_NAME, error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, "no space left", str(path)) from None
        if code == sqlite3.SQLITE_READONLY:
            raise InputError(
                f"{folder}: no permission to write, which is needed to change the index and to repair what a killed "
                "process left behind"
            ) from None
        if code == sqlite3.SQLITE_CANTOPEN:
            raise InputError(f"{path}: cannot be opened; no permission to read it or to write to its folder") from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InputError(f"{path}: locked by another process for {_TIMEOUT:.0f} s; try again") from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise InputError(f"{path}: corrupt or not a manifest of an index ({error}); build a new index") from None
        raise OSError(errno.EIO, f"{error}", str(path)) from error


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
        store_metadata(connection, {"generation": 0, "version": 0, **metadata})


def is_index(folder: Path) -> bool:
    """Check whether a folder holds a complete manifest.

    Args:
        folder: Any folder, which may be missing.

    Returns:
        False if there is no manifest or its creation was interrupted.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with translate_errors(folder), contextlib.closing(_connect(path, "rw")) as connection:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0])


def open_manifest(folder: Path) -> sqlite3.Connection:
    """Open the manifest of an index.

    Args:
        folder: The folder of the index.

    Returns:
        A connection without implicit transactions.

    Raises:
        InputError: If there is no index, or it has a different format version.
    """
    advice = f"create one with tools/index.py DIR --index {folder}"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such index; {advice}")
    if not is_index(folder):
        raise InputError(f"{folder}: not an index (no {MANIFEST_NAME}); {advice}")
    with translate_errors(folder):
        connection = _connect(folder / MANIFEST_NAME, "rw")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        connection.close()
        raise InputError(
            f"{folder / MANIFEST_NAME}: index format {version} is not supported, expected {FORMAT_VERSION}"
        )
    return connection


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


@contextlib.contextmanager
def read_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction in which all reads see the same state.

    Args:
        connection: A connection from `open_manifest`.

    Yields:
        None, once, inside the transaction.
    """
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def load_metadata(connection: sqlite3.Connection) -> dict[str, Any]:
    """Load the metadata of an index.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        `model_id`, `dim`, `shard` (rows per file), `generation`, `version` and other stored entries.

    Raises:
        InputError: If an entry is missing or corrupt.
    """
    entries = connection.execute("SELECT name, value FROM about").fetchall()
    try:
        metadata = {str(name): json.loads(value) for name, value in entries}
        for name in ("generation", "version", "dim", "shard"):
            metadata[name] = int(metadata[name])
        return {**metadata, "model_id": str(metadata["model_id"])}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError("the manifest of the index is corrupt; build a new index") from None


def store_metadata(connection: sqlite3.Connection, entries: Mapping[str, Any]) -> None:
    """Add or replace entries of the metadata.

    Args:
        connection: A connection inside `write_transaction`.
        entries: Plain values by name.
    """
    connection.executemany(
        "INSERT OR REPLACE INTO about VALUES (?, ?)", [(name, json.dumps(value)) for name, value in entries.items()]
    )


def increment_version(connection: sqlite3.Connection) -> None:
    """Increment the version, by which a FAISS index of an earlier state is detected.

    Args:
        connection: A connection inside `write_transaction`.
    """
    store_metadata(connection, {"version": int(load_metadata(connection)["version"]) + 1})


def read_images(connection: sqlite3.Connection) -> Iterator[tuple[Crop, bytes, bool]]:
    """Iterate over all images in the order of their paths.

    Args:
        connection: A connection from `open_manifest`.

    Yields:
        The crop, the SHA-256 digest of its content, and whether the user removed it.
    """
    query = "SELECT path, size, changed, identity, camera, time, digest, removed FROM images ORDER BY path"
    for path, size, mtime_ns, identity, camera, time, digest, removed in connection.execute(query):
        yield Crop(path, size, mtime_ns, Labels(identity, camera, time)), digest, bool(removed)


def count_rows(connection: sqlite3.Connection) -> int:
    """Count the feature rows in use, tombstones included.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        Number of rows, 0 for an empty index.
    """
    return int(connection.execute("SELECT COALESCE(MAX(place) + 1, 0) FROM contents").fetchone()[0])


def check_model(folder: Path, metadata: Mapping[str, Any], model_id: str | None, dim: int | None) -> None:
    """Check that an index was built by a given model.

    Args:
        folder: The folder of the index, for the messages.
        metadata: The metadata of the index.
        model_id: The id of the model; None to accept any.
        dim: The feature dimension of the model; None to accept any.

    Raises:
        InputError: If the model or the feature dimension differs.
    """
    if model_id is not None and model_id != metadata["model_id"]:
        raise InputError(
            f"{folder}: was built with the model {metadata['model_id']}, not {model_id} (an id covers weights, "
            "preprocessing, feature and flip); use the weights it was built with, or another --index"
        )
    if dim is not None and dim != metadata["dim"]:
        raise InputError(f"{folder}: holds features of dimension {metadata['dim']}, but the model outputs {dim}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Mode rw falls back to read-only access without write permission.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT, isolation_level=None)
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection
