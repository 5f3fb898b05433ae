"""The tables of a manifest: images and contents, verified whenever they are read and changed with their digests.

The digest of a table is the sum of the digests of its rows, modulo 2^64. A commit updates it from the rows it changes
alone, and a row that is changed, missing or there twice changes it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from reid.search.gallery import manifest
from reid.search.gallery.crops import Crop, Labels
from reid.search.gallery.manifest import DamagedManifest

_CONTENT_ROWS = "SELECT place, digest, checksum FROM contents"
_CONTENT_TYPES = (int, bytes, int)
_IMAGE_ROWS = "SELECT path, size, changed, removed, identity, camera, time, digest FROM images"
_IMAGE_TYPES = (str, int, int, int, str, str, str, bytes)
_SHA256_BYTES = 32
_PARAMETERS = 500  # of one statement; SQLite allows at least 999


@dataclass(frozen=True)
class Contents:
    """The contents by feature row.

    Attributes:
        digests: SHA-256 digest of the content of each row.
        checksums: (n,) uint32, CRC-32 of each row.
    """

    digests: list[bytes] = field(repr=False)
    checksums: np.ndarray = field(repr=False)


def read_tables(connection: sqlite3.Connection) -> tuple[Contents, list[tuple[Crop, bytes, bool]]]:
    """Read and verify both tables.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        The contents, and the images as `read_images` returns them.

    Raises:
        DamagedManifest: If they are not as they were written, or an image that was not removed has no features.
    """
    contents, images = read_contents(connection), read_images(connection)
    known = set(contents.digests)
    if not all(removed or digest in known for _, digest, removed in images):
        raise DamagedManifest("an image has no feature row")
    return contents, images


def read_contents(connection: sqlite3.Connection) -> Contents:
    """Read and verify the contents.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        The contents, of which the rows are numbered without gaps.

    Raises:
        DamagedManifest: If they are not as they were written.
    """
    digests, checksums, hashes = [], [], []
    for position, row in enumerate(connection.execute(f"{_CONTENT_ROWS} ORDER BY place")):
        place, digest, checksum = row
        if tuple(map(type, row)) != _CONTENT_TYPES or place != position or not 0 <= checksum < 2**32:
            raise DamagedManifest(f"its entry of feature row {position} is missing or invalid")
        digests.append(digest)
        checksums.append(checksum)
        hashes.append(_hash_content(place, digest, checksum))
    if len(set(digests)) != len(digests) or any(len(digest) != _SHA256_BYTES for digest in digests):
        raise DamagedManifest("a content has two feature rows or an invalid digest")
    _check(connection, "contents", hashes)
    return Contents(digests, np.array(checksums, dtype=np.uint32))


def read_images(connection: sqlite3.Connection) -> list[tuple[Crop, bytes, bool]]:
    """Read and verify all images, in the order of their paths.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        For each image the crop, the SHA-256 digest of its content, and whether the user removed it.

    Raises:
        DamagedManifest: If they are not as they were written.
    """
    images, hashes, previous = [], [], None
    for row in connection.execute(f"{_IMAGE_ROWS} ORDER BY path"):
        if tuple(map(type, row)) != _IMAGE_TYPES:
            raise DamagedManifest("an image has a value of the wrong type")
        path, size, mtime_ns, removed, identity, camera, time, digest = row
        if previous is not None and path <= previous:
            raise DamagedManifest("its images are not in order")
        previous = path
        images.append((Crop(path, size, mtime_ns, Labels(identity, camera, time)), digest, bool(removed)))
        hashes.append(_hash_image(row))
    _check(connection, "images", hashes)
    return images


def add_digests(connection: sqlite3.Connection) -> None:
    """Add digests to an index of the first format version, which has none.

    Args:
        connection: A connection inside `write_transaction`, to tables that were verified.
    """
    metadata = manifest.load_metadata(connection)
    connection.execute(f"PRAGMA user_version = {manifest.FORMAT_VERSION}")
    manifest.write_metadata(connection, metadata, _table_digests(connection))


@contextlib.contextmanager
def change_contents_and_images(connection: sqlite3.Connection, paths: Sequence[str]) -> Iterator[None]:
    """Keep the digests, and increment the version, while images of the given paths are changed and contents appended.

    Args:
        connection: A connection inside `write_transaction`.
        paths: Paths of all images that are added, changed or deleted.

    Yields:
        None, once; the tables are changed inside.
    """
    digests = manifest.load_digests(connection)
    count = count_contents(connection)
    unchanged = digests["images"] - _sum_images(connection, paths)
    yield
    added = connection.execute(f"{_CONTENT_ROWS} WHERE place >= ?", (count,))
    contents = digests["contents"] + _sum([_hash_content(*row) for row in added])
    images = unchanged + _sum_images(connection, paths)
    manifest.increment_version(connection, {"contents": contents % 2**64, "images": images % 2**64})


@contextlib.contextmanager
def change_everything(connection: sqlite3.Connection) -> Iterator[None]:
    """Compute the digests anew, and increment the version, after any change of the tables.

    Args:
        connection: A connection inside `write_transaction`, to tables that were verified.

    Yields:
        None, once; the tables are changed inside.
    """
    yield
    manifest.increment_version(connection, _table_digests(connection))


def count_contents(connection: sqlite3.Connection) -> int:
    """Count the feature rows in use, tombstones included.

    Args:
        connection: A connection from `open_manifest`.

    Returns:
        Number of rows, 0 for an empty index.
    """
    return int(connection.execute("SELECT COALESCE(MAX(place) + 1, 0) FROM contents").fetchone()[0])


def _check(connection: sqlite3.Connection, table: str, hashes: list[bytes]) -> None:
    if manifest.format_version(connection) == manifest.FIRST_VERSION:
        return
    if manifest.load_digests(connection).get(table) != _sum(hashes):
        raise DamagedManifest(f"its {table} do not match their digest")


def _table_digests(connection: sqlite3.Connection) -> dict[str, int]:
    contents = [_hash_content(*row) for row in connection.execute(_CONTENT_ROWS)]
    images = [_hash_image(row) for row in connection.execute(_IMAGE_ROWS)]
    return {"contents": _sum(contents), "images": _sum(images)}


def _sum_images(connection: sqlite3.Connection, paths: Sequence[str]) -> int:
    hashes: list[bytes] = []
    for start in range(0, len(paths), _PARAMETERS):
        some = paths[start : start + _PARAMETERS]
        query = f"{_IMAGE_ROWS} WHERE path IN ({', '.join('?' * len(some))})"
        hashes += map(_hash_image, connection.execute(query, some))
    return _sum(hashes)


def _hash_content(place: int, digest: bytes, checksum: int) -> bytes:
    return blake2b(b"%d %d " % (place, checksum) + digest, digest_size=8).digest()


def _hash_image(row: tuple[Any, ...]) -> bytes:
    path, size, mtime_ns, removed, identity, camera, time, digest = row
    text = f"{size} {mtime_ns} {removed} {path}\0{identity}\0{camera}\0{time}\0"
    return blake2b(text.encode() + digest, digest_size=8).digest()


def _sum(hashes: list[bytes]) -> int:
    return int(np.frombuffer(b"".join(hashes), dtype="<u8").sum(dtype=np.uint64))
