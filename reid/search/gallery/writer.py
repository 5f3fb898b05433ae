"""The one who writes an index: commits rows and names together, removes, compacts and checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from reid.errors import InputError
from reid.io.atomic import sync_folder
from reid.io.locks import LOCK_NAME, lock_folder
from reid.io.shards import Shards
from reid.ranking.unit_search import UNIT_SLACK
from reid.search.gallery import manifest
from reid.search.gallery.crops import Crop
from reid.search.gallery.rows import FOLDER, RowWriter, checksums, clean, map_rows

SHARD = 65_536  # rows
_BUSY = "writes to this index; let it end"
_COPIED = 4096
# Contents that an image can be found by.
_LIVING = "digest IN (SELECT digest FROM images WHERE NOT removed)"


class Gallery:
    """An index open for writing, locked until `close` or the end of the process; use it in a `with`.

    Made by `create`, `open` or `open_or_create`. All that has been committed outlasts a kill or a power cut, and
    nothing else is seen by anybody.
    """

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder, self._lock = folder, lock
        self._connection = manifest.open_manifest(folder)
        with manifest.told(folder):
            about = manifest.about(self._connection)
            self.dim, self.shard, self.model_id = int(about["dim"]), int(about["shard"]), str(about["model_id"])
            self._start_rows(int(about["generation"]))

    @classmethod
    def create(
        cls, path: Path, *, model_id: str, dim: int, shard: int = SHARD, notes: Mapping[str, Any] | None = None
    ) -> Gallery:
        """Make an empty index in a folder that is new, empty or holds a half-made one.

        model_id, dim: of the model its features will be of, and their width. shard: rows a file. notes: plain values to
        keep with it. Raises InputError where there is an index or something else, and for a shard below 1.
        """
        if shard < 1 or dim < 1:
            raise InputError(f"an index of {shard} rows a shard and {dim} numbers a row: both must be at least 1")
        _check_place(path)
        (path / FOLDER).mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path, _BUSY)
        try:
            if manifest.is_index(path):
                raise InputError(f"{path}: already holds an index; open it, or choose another --index")
            for left in path.glob(f"{manifest.NAME}*"):  # half-made by a process that was killed
                left.unlink()
            manifest.create(path, {"model_id": model_id, "dim": dim, "shard": shard, **(notes or {})})
            sync_folder(path)
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, path: Path, *, model_id: str | None = None, dim: int | None = None) -> Gallery:
        """Open an index to write to. What a killed process left half-written is put right.

        Raises InputError where there is none, where another process writes to it, and where it was made by another
        model than `model_id`, or for features of another width than `dim`.
        """
        manifest.open_manifest(path).close()
        lock = lock_folder(path, _BUSY)
        try:
            gallery = cls(path, lock)
            manifest.check_model(path, gallery.model_id, gallery.dim, model_id, dim)
            return gallery
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open_or_create(
        cls, path: Path, *, model_id: str, dim: int, shard: int | None = None, notes: Mapping[str, Any] | None = None
    ) -> Gallery:
        """`open` where there is an index, else `create`. Raises InputError where `shard` is given and is another."""
        if not manifest.is_index(path):
            return cls.create(path, model_id=model_id, dim=dim, shard=SHARD if shard is None else shard, notes=notes)
        gallery = cls.open(path, model_id=model_id, dim=dim)
        if shard not in (None, gallery.shard):
            gallery.close()
            raise InputError(f"{path}: was made with {gallery.shard:,} rows a shard and keeps them: leave --shard out")
        return gallery

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        self._connection.close()
        self._lock.close()

    def notes(self) -> dict[str, Any]:
        """What is kept with the index: model_id, dim, shard, version and what was given to `create` or `note`."""
        with manifest.told(self.folder):
            return manifest.about(self._connection)

    def note(self, **entries: Any) -> None:
        """Keep plain values with the index."""
        with manifest.told(self.folder), manifest.write(self._connection):
            manifest.store(self._connection, entries)

    def crops(self) -> dict[str, tuple[Crop, bytes, bool]]:
        """Path -> crop, digest of its content and whether the user removed it, of all that are known."""
        with manifest.told(self.folder):
            return {crop.path: (crop, digest, gone) for crop, digest, gone in manifest.read_images(self._connection)}

    def contents(self) -> set[bytes]:
        """Digests of the contents that have features, tombstones included."""
        with manifest.told(self.folder):
            return {digest for (digest,) in self._connection.execute("SELECT digest FROM contents")}

    def commit(
        self,
        crops: Sequence[tuple[Crop, bytes]] = (),
        features: Mapping[bytes, np.ndarray] | None = None,
        *,
        vanished: Iterable[str] = (),
    ) -> None:
        """Add or change crops, each with the digest of its content, and forget vanished paths, all or nothing.

        features: (D,) rows of length 1 of contents that have none yet. On return all of it is on the disk. Raises
        InputError for rows of another width or length, OSError for a full disk; nothing has changed then.
        """
        before = self._writer.place
        try:
            rows = np.empty((0, self.dim), dtype=np.float32)
            if features:
                rows = np.stack([np.asarray(row, dtype=np.float32) for row in features.values()])
                _check_rows(rows, self.dim)
                self._writer.append(rows)
            named = zip(range(before, before + len(rows)), features or (), checksums(rows), strict=True)
            with manifest.told(self.folder), manifest.write(self._connection):
                self._connection.executemany("INSERT INTO contents VALUES (?, ?, ?)", named)
                self._connection.executemany(
                    "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                    [
                        (c.path, digest, c.size, c.changed, c.labels.identity, c.labels.camera, c.labels.time)
                        for c, digest in crops
                    ],
                )
                self._connection.executemany("DELETE FROM images WHERE path = ?", [(path,) for path in vanished])
                manifest.count_change(self._connection)
        except BaseException:
            # The rows are not named, so the next ones take their place.
            self._writer.place = before
            raise

    def mark(self, paths: Iterable[str], *, removed: bool) -> None:
        """Remove images from what is searched, for good, though their files stay; or take that back.

        One whose features have been compacted away is forgotten when it is taken back, so that it is embedded again.
        """
        with manifest.told(self.folder), manifest.write(self._connection):
            self._connection.executemany(
                "UPDATE images SET removed = ? WHERE path = ?", [(int(removed), path) for path in paths]
            )
            self._connection.execute(
                "DELETE FROM images WHERE NOT removed AND digest NOT IN (SELECT digest FROM contents)"
            )
            manifest.count_change(self._connection)

    def compact(self) -> int:
        """Rewrite the features without those that no image needs any more; returns how many these were.

        The new files are whole on the disk before the manifest names them; until then the old ones count.
        """
        with manifest.told(self.folder):
            found = self._connection.execute(f"SELECT place FROM contents WHERE {_LIVING} ORDER BY place").fetchall()
            places, rows = np.array([place for (place,) in found], dtype=np.int64), self._writer.place
            if len(places) == rows:
                return 0
            old, generation = self._map(), self._writer.generation + 1
            writer = RowWriter(self.folder, generation=generation, dim=self.dim, shard=self.shard, place=0)
            for start in range(0, len(places), _COPIED):
                writer.append(old[places[start : start + _COPIED]])
            with manifest.write(self._connection):
                self._connection.execute(f"DELETE FROM contents WHERE NOT {_LIVING}")
                # Ascending, so that the new place of each has been left by then.
                moved = [(new, place) for new, place in enumerate(places.tolist()) if new != place]
                self._connection.executemany("UPDATE contents SET place = ? WHERE place = ?", moved)
                manifest.store(self._connection, {"generation": generation})
                manifest.count_change(self._connection)
            self._start_rows(generation)
        return rows - len(places)

    def damaged(self) -> list[str]:
        """Paths whose features are not what their checksum says, all rows read."""
        with manifest.told(self.folder):
            known = self._connection.execute("SELECT place, checksum FROM contents ORDER BY place").fetchall()
            rows, broken = self._map() if known else None, []
            for start in range(0, len(known), _COPIED):
                some = known[start : start + _COPIED]
                assert rows is not None
                found = checksums(rows[np.array([place for place, _ in some])])
                broken += [place for (place, said), held in zip(some, found, strict=True) if said != held]
            query = "SELECT path FROM images JOIN contents USING (digest) WHERE place = ? ORDER BY path"
            return [path for place in broken for (path,) in self._connection.execute(query, (place,))]

    def _map(self) -> Shards:
        writer = self._writer
        parts = map_rows(self.folder, generation=writer.generation, dim=self.dim, shard=self.shard, rows=writer.place)
        return Shards(parts)

    def _start_rows(self, generation: int) -> None:
        rows = manifest.count_rows(self._connection)
        (self.folder / FOLDER).mkdir(exist_ok=True)
        clean(self.folder, generation=generation, shard=self.shard, rows=rows)
        self._writer = RowWriter(self.folder, generation=generation, dim=self.dim, shard=self.shard, place=rows)


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, and an index is a folder: choose another --index")
    if path.is_dir() and not manifest.is_index(path):
        names = sorted(entry.name for entry in path.iterdir() if entry.name not in (FOLDER, LOCK_NAME))
        if others := [name for name in names if not name.startswith(manifest.NAME)]:
            raise InputError(f"{path}: holds other things ({', '.join(others[:3])}) and no index: name a new folder")


def _check_rows(rows: np.ndarray, dim: int) -> None:
    if rows.shape[1] != dim:
        raise InputError(f"features of {rows.shape[1]} numbers for an index of {dim}")
    wide = rows.astype(np.float64)
    squared = np.einsum("ij,ij->i", wide, wide)
    wrong = np.flatnonzero(~(np.abs(squared - 1) <= UNIT_SLACK))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(rows)} features have no length 1, the first {np.sqrt(squared[wrong[0]]):.6g}: an "
            "index holds L2-normalized rows; does the network give zeros or NaN?"
        )
