"""An index as it was at one moment, for searching: what is written afterwards does not show."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.shards import Shards
from reid.search.gallery import manifest
from reid.search.gallery.crops import Crop, parse_time
from reid.search.gallery.rows import map_rows

_TRIES = 5


@dataclass(frozen=True)
class Snapshot:
    """All images that can be found, in the order of their paths.

    crops: N images; places: (N,) int64, the row of each, which several may share; digests: N, SHA-256 of their
    contents. parts: float32 rows (n_i, D) of length 1 as memory maps, tombstones among them. notes: what is kept with
    the index.
    """

    folder: Path
    crops: tuple[Crop, ...] = field(repr=False)
    places: np.ndarray = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    parts: list[np.ndarray] = field(repr=False)
    notes: dict[str, Any]

    @property
    def dim(self) -> int:
        """Numbers of a row."""
        return int(self.notes["dim"])

    def living(self) -> np.ndarray:
        """Places of the rows that an image has, int64, ascending."""
        return self._living

    def images_of(self, place: int) -> np.ndarray:
        """The numbers of the images whose row that is, ascending."""
        order, places = self._by_place
        first, stop = np.searchsorted(places, [place, place + 1])
        return order[first:stop]

    @functools.cached_property
    def _living(self) -> np.ndarray:
        return np.unique(self.places)

    @functools.cached_property
    def _by_place(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.places, kind="stable")
        return order, self.places[order]

    def values(self) -> np.ndarray:
        """(N, D) float32: the features of `crops`, in memory."""
        return Shards(self.parts)[self.places] if self.parts else np.empty((0, self.dim), dtype=np.float32)

    def cameras(self) -> list[str]:
        """The cameras that are known, numbers in their order."""
        return sorted({crop.labels.camera for crop in self.crops} - {""}, key=lambda text: (len(text), text))

    def chosen(self, cameras: Sequence[str] = (), period: tuple[float, float] | None = None) -> np.ndarray:
        """(N,) bool: images of one of `cameras`, all without any, and with a time within `period`, both ends included.

        Raises InputError for a camera that no image has, and a period where no time is known.
        """
        labels = [crop.labels for crop in self.crops]
        found = np.ones(len(labels), dtype=bool)
        if cameras:
            known = self.cameras()
            missing = [camera for camera in cameras if camera not in known]
            if missing:
                there = f"there are {', '.join(known[:20])}" if known else "none is known: index with --pattern"
                raise InputError(f"{self.folder}: no image of camera {missing[0]}; {there}")
            found &= np.array([label.camera in cameras for label in labels], dtype=bool)
        if period is not None:
            times = np.array([parse_time(label.time) if label.time else math.nan for label in labels])
            if not np.isfinite(times).any():
                raise InputError(f"{self.folder}: no time of any image is known: index with {{time}} in the --pattern")
            found &= (times >= period[0]) & (times <= period[1])
        return found


def check_model(snapshot: Snapshot, model_id: str, dim: int) -> None:
    """Raise InputError where the index was made by another model, or holds features of another width."""
    manifest.check_model(snapshot.folder, str(snapshot.notes["model_id"]), snapshot.dim, model_id, dim)


def read_notes(folder: Path) -> dict[str, Any]:
    """What is kept with the index, `Snapshot.notes`, without its images. Raises InputError where there is none."""
    with manifest.told(folder), contextlib.closing(manifest.open_manifest(folder)) as connection:
        return manifest.about(connection)


def read_snapshot(folder: Path, *, model_id: str | None = None, dim: int | None = None) -> Snapshot:
    """The index as it is now; may be called while somebody writes.

    Raises InputError where there is none, it is broken, or it was made by another model.
    """
    for tries in range(1, _TRIES + 1):
        with (
            manifest.told(folder),
            contextlib.closing(manifest.open_manifest(folder)) as connection,
            manifest.read(connection),
        ):
            notes, rows = manifest.about(connection), manifest.count_rows(connection)
            manifest.check_model(folder, str(notes["model_id"]), int(notes["dim"]), model_id, dim)
            place = dict(connection.execute("SELECT digest, place FROM contents"))
            images = [(crop, digest) for crop, digest, gone in manifest.read_images(connection) if not gone]
        layout = {name: int(notes[name]) for name in ("generation", "dim", "shard")}
        try:
            parts = map_rows(folder, rows=rows, **layout)
            break
        except FileNotFoundError as error:
            # Perhaps compacted between the reading of the manifest and the opening of the files.
            if tries == _TRIES:
                raise InputError(
                    f"{error.filename}: missing, though the index needs it; index again elsewhere"
                ) from None
    places = np.array([place[digest] for _, digest in images], dtype=np.int64)
    return Snapshot(folder, tuple(c for c, _ in images), places, tuple(d for _, d in images), parts, notes)
