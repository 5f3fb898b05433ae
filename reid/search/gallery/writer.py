"""The writer of an index: commits features and images together, removes, compacts and verifies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from reid.errors import InputError
from reid.io.atomic import make_folder, sync_folder
from reid.io.locks import LOCK_NAME, lock_folder
from reid.io.shards import Shards
from reid.ranking.unit_search import UNIT_SLACK
from reid.search.gallery import manifest, manifest_rows
from reid.search.gallery.crops import Crop
from reid.search.gallery.manifest_entries import find_invalid_entry
from reid.search.gallery.shard_files import FEATURES_FOLDER, ShardLayout, ShardWriter, find_damaged, row_checksums

SHARD_SIZE = 65_536  # rows per file
_BUSY = "is writing to this index; wait until it has finished"
_CHUNK_ROWS = 4096  # rows read at once
# Contents of at least one image that can be found.
_ACTIVE = "digest IN (SELECT digest FROM images WHERE NOT removed)"


class Gallery:
    """An index open for writing, locked until `close` or the end of the process.

    Create it with `create` or `open` and use it as a context manager. Committed changes survive a kill or a power
    failure; uncommitted ones are never visible to readers.

    Args:
        folder: The folder of the index.
        lock: The lock of the folder, closed with the index.
    """

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder, self._lock = folder, lock
        self._connection = manifest.open_manifest(folder)
        try:
            # Before anything is changed or removed.
            self._verify()
            metadata = self.metadata()
            self.dim, self.shard_size = int(metadata["dim"]), int(metadata["shard"])
            self._follow_manifest()
            self._remove_stale_faiss_indexes(metadata)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        model_id: str,
        dim: int,
        shard_size: int = SHARD_SIZE,
        metadata: Mapping[str, Any] | None = None,
    ) -> Gallery:
        """Create an empty index.

        Args:
            path: A folder that is new, empty or holds an index whose creation was interrupted.
            model_id: The id of the model that computes the features.
            dim: Number D of feature dimensions.
            shard_size: Rows per file.
            metadata: Further plain values to store.

        Returns:
            The index, open for writing.

        Raises:
            InputError: If the folder holds an index or anything else, or a size is below 1.
        """
        if shard_size < 1 or dim < 1:
            raise InputError(f"--shard {shard_size}, feature dimension {dim}: both must be at least 1")
        _check_folder(path)
        make_folder(path / FEATURES_FOLDER)
        lock = lock_folder(path, _BUSY)
        try:
            if manifest.is_index(path):
                raise InputError(f"{path}: already holds an index; open it, or choose another --index")
            for partial in path.glob(f"{manifest.MANIFEST_NAME}*"):  # left by a killed process
                partial.unlink()
            entries = {"model_id": model_id, "dim": dim, "shard": shard_size, **(metadata or {})}
            invalid = find_invalid_entry({"generation": 0, "version": 0, **entries})
            if invalid:
                raise InputError(f"{path}: an index cannot have {invalid} {entries[invalid]!r}")
            manifest.create_manifest(path, entries)
            sync_folder(path)
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, path: Path, *, model_id: str | None = None, dim: int | None = None) -> Gallery:
        """Open an index for writing and remove what a killed process left behind.

        Args:
            path: The folder of the index.
            model_id: The id of the model that computes the features; None to accept any.
            dim: Its feature dimension; None to accept any.

        Returns:
            The index, open for writing.

        Raises:
            InputError: If there is no index, another process writes to it, it is corrupt, or it was built by a
                different model.
        """
        manifest.open_manifest(path).close()
        lock = lock_folder(path, _BUSY)
        try:
            gallery = cls(path, lock)
            gallery.check(model_id, dim)
            return gallery
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and release its lock."""
        self._connection.close()
        self._lock.close()

    def metadata(self) -> dict[str, Any]:
        """Load the metadata, see `IndexWriter.metadata`; with `shard`, `generation` and `version`."""
        with manifest.translate_errors(self.folder):
            return manifest.load_metadata(self._connection)

    def check(self, model_id: str | None, dim: int | None, shard_size: int | None = None) -> None:
        """Check that the index fits a model and a size of its files, see `IndexWriter.check`."""
        manifest.check_model(self.folder, self.metadata(), model_id, dim)
        if shard_size not in (None, self.shard_size):
            raise InputError(
                f"--shard {shard_size}: {self.folder} was created with {self.shard_size:,} rows per shard, which "
                "cannot be changed; omit --shard"
            )

    def set_metadata(self, **entries: Any) -> None:
        """Add or replace entries of the metadata, see `IndexWriter.set_metadata`."""
        with manifest.translate_errors(self.folder), manifest.write_transaction(self._connection):
            manifest.store_metadata(self._connection, entries)

    def images(self) -> Iterator[tuple[Crop, bytes, bool]]:
        """Read all known images, which have to be verified together, see `IndexWriter.images`."""
        with manifest.translate_errors(self.folder):
            return iter(manifest_rows.read_images(self._connection))

    def digests(self) -> set[bytes]:
        """Load the digests of all contents that have features, deleted ones too, see `IndexWriter.digests`."""
        with manifest.translate_errors(self.folder):
            return set(manifest_rows.read_contents(self._connection).digests)

    def commit(
        self,
        crops: Sequence[tuple[Crop, bytes]] = (),
        features: Mapping[bytes, np.ndarray] | None = None,
        *,
        deleted: Iterable[str] = (),
    ) -> None:
        """Add or change images and drop others in one transaction, see `IndexWriter.commit`.

        It is on the disk when the call returns; after an error nothing has changed.

        Raises:
            InputError: If a row has a different dimension or length.
            OSError: If the disk is full.
        """
        first, deleted = self._writer.position, list(deleted)
        paths = [crop.path for crop, _ in crops] + deleted
        try:
            rows = np.empty((0, self.dim), dtype=np.float32)
            if features:
                rows = np.stack([np.asarray(row, dtype=np.float32) for row in features.values()])
                check_rows(rows, self.dim)
                self._writer.append(rows)
            contents = zip(range(first, first + len(rows)), features or (), row_checksums(rows), strict=True)
            with (
                manifest.translate_errors(self.folder),
                manifest.write_transaction(self._connection),
                manifest_rows.change_contents_and_images(self._connection, paths),
            ):
                self._connection.executemany("INSERT INTO contents VALUES (?, ?, ?)", contents)
                self._connection.executemany(
                    "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                    [
                        (c.path, digest, c.size, c.mtime_ns, c.labels.identity, c.labels.camera, c.labels.time)
                        for c, digest in crops
                    ],
                )
                self._connection.executemany("DELETE FROM images WHERE path = ?", [(path,) for path in deleted])
        except BaseException:
            self._follow_manifest()  # Ctrl-C may come when the transaction is on the disk already
            raise

    def set_removed(self, paths: Iterable[str], removed: bool) -> None:
        """Remove images from the results or restore them, see `IndexWriter.set_removed`.

        A restored image whose features have been compacted away is dropped, so that the next update embeds it again.
        """
        with (
            manifest.translate_errors(self.folder),
            manifest.write_transaction(self._connection),
            manifest_rows.change_everything(self._connection),
        ):
            self._connection.executemany(
                "UPDATE images SET removed = ? WHERE path = ?", [(int(removed), path) for path in paths]
            )
            self._connection.execute(
                "DELETE FROM images WHERE NOT removed AND digest NOT IN (SELECT digest FROM contents)"
            )

    def compact(self) -> int:
        """Rewrite the shards without the features of removed and deleted images, see `IndexWriter.compact`.

        The new files are flushed before the manifest refers to them; until then the old ones stay in use.
        """
        with manifest.translate_errors(self.folder):
            query = f"SELECT place FROM contents WHERE {_ACTIVE} ORDER BY place"
            kept = np.array([row for (row,) in self._connection.execute(query).fetchall()], dtype=np.int64)
            count = self._writer.position
            if len(kept) == count:
                return 0
            old, layout = self._map_rows(), self._writer.layout
            new_layout = dataclasses.replace(layout, generation=layout.generation + 1)
            try:
                writer = ShardWriter(new_layout, 0)
                for start in range(0, len(kept), _CHUNK_ROWS):
                    writer.append(old[kept[start : start + _CHUNK_ROWS]])
                with (
                    manifest.write_transaction(self._connection),
                    manifest_rows.change_everything(self._connection),
                ):
                    self._connection.execute(f"DELETE FROM contents WHERE NOT {_ACTIVE}")
                    # Ascending, so that each new position is free by then.
                    moved = [(new, row) for new, row in enumerate(kept.tolist()) if new != row]
                    self._connection.executemany("UPDATE contents SET place = ? WHERE place = ?", moved)
                    manifest.store_metadata(self._connection, {"generation": new_layout.generation})
            finally:
                self._follow_manifest()
        return count - len(kept)

    def find_corrupt(self) -> list[str]:
        """Compare all features with their checksums, see `IndexWriter.find_corrupt`; notes rows without an image."""
        with manifest.translate_errors(self.folder):
            contents, images = manifest_rows.read_tables(self._connection)
        if not contents.digests:
            return []
        damaged = {contents.digests[row] for row in find_damaged(self._map_rows(), contents.checksums).tolist()}
        found = [(digest, crop.path) for crop, digest, _ in images if digest in damaged]
        tombstones = len(damaged) - len({digest for digest, _ in found})
        return [path for _, path in found] + ["a row of a deleted image"] * tombstones

    def _map_rows(self) -> Shards:
        try:
            return Shards(self._writer.layout.map_rows(self._writer.position))
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename}: missing from the index; restore it from a copy, or delete the index and build it "
                "again"
            ) from None

    def _verify(self) -> None:
        with manifest.translate_errors(self.folder):
            manifest.check_structure(self._connection)
            manifest_rows.read_tables(self._connection)
            if manifest.format_version(self._connection) == manifest.FIRST_VERSION:
                with manifest.write_transaction(self._connection):
                    manifest_rows.add_digests(self._connection)

    def _remove_stale_faiss_indexes(self, metadata: Mapping[str, Any]) -> None:
        # Nobody else writes to the folder while it is locked.
        current = (metadata.get("faiss") or {}).get("file")
        for path in (*self.folder.glob("faiss-*.index"), *self.folder.glob(".faiss-*.index.writing")):
            if path.name != current:
                path.unlink(missing_ok=True)

    def _follow_manifest(self) -> None:
        """Write behind the rows that the manifest refers to; others, of a transaction that failed, are overwritten."""
        layout = ShardLayout.from_metadata(self.folder, self.metadata())
        with manifest.translate_errors(self.folder):
            count = manifest_rows.count_contents(self._connection)
        (self.folder / FEATURES_FOLDER).mkdir(exist_ok=True)
        layout.remove_stale(count)
        self._writer = ShardWriter(layout, count)


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, but an index is a folder; choose another --index")
    if path.is_dir() and not manifest.is_index(path):
        names = sorted(entry.name for entry in path.iterdir() if entry.name not in (FEATURES_FOLDER, LOCK_NAME))
        if others := [name for name in names if not name.startswith(manifest.MANIFEST_NAME)]:
            raise InputError(f"{path}: holds other files ({', '.join(others[:3])}) and no index; choose a new folder")
        if any((path / FEATURES_FOLDER).glob("*.npy")):
            raise InputError(
                f"{path}: holds features, but {manifest.MANIFEST_NAME} is missing or empty; restore it from a copy, or "
                "delete the folder"
            )


def check_rows(rows: np.ndarray, dim: int) -> None:
    """Check features before they are written.

    Args:
        rows: (n, D) float32.
        dim: Expected D.

    Raises:
        InputError: If D differs, or a row is not of unit length.
    """
    if rows.shape[1] != dim:
        raise InputError(f"features of dimension {rows.shape[1]} do not fit an index of dimension {dim}")
    wide = rows.astype(np.float64)
    squared = np.einsum("ij,ij->i", wide, wide)
    wrong = np.flatnonzero(~(np.abs(squared - 1) <= UNIT_SLACK))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(rows)} features are not of unit length, the first has length "
            f"{np.sqrt(squared[wrong[0]]):.6g}; does the network output zeros or NaN?"
        )
