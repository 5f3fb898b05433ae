"""An index as it is at the moment of each request, and the pictures of its images, of nothing else on the disk."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import threading
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid.errors import InputError
from reid.io.shards import Shards
from reid.search.gallery import Nearest, Snapshot, choose_search, parse_time, read_notes, read_snapshot

# An image is called by its row of features in its generation: writers may add and remove, and it stays that one. As
# JavaScript counts to 2^53, there is room for 2 million generations of 4 billion rows.
_ROWS = 2**32


class Gone(Exception):
    """An image whose picture cannot be shown, and why."""


@dataclass(frozen=True, eq=False)
class View:
    """One state of an index. nearest: the search to use, None for the exact one; search: what it is, in words."""

    snapshot: Snapshot
    nearest: Nearest | None
    search: str

    def id_of(self, image: int) -> int:
        """What the outside calls an image of the snapshot."""
        return int(self.snapshot.notes["generation"]) * _ROWS + int(self.snapshot.places[image])

    def image_of(self, id: int) -> int | None:
        """The number of an image; of several with one content, the first by path. None where there is none."""
        generation, place = divmod(id, _ROWS)
        if generation != self.snapshot.notes["generation"]:
            return None
        order = self._by_place
        at = int(np.searchsorted(self.snapshot.places, place, sorter=order))
        if at == len(order) or self.snapshot.places[order[at]] != place:
            return None
        return int(order[at])

    def image_at(self, path: str) -> int | None:
        """The number of the image of that very path; None where the index has none. The disk is not asked."""
        crops = self.snapshot.crops
        at = bisect_left(crops, path, key=lambda crop: crop.path)
        return at if at < len(crops) and crops[at].path == path else None

    def row(self, image: int) -> np.ndarray:
        """(1, D) float32: the features of an image."""
        return Shards(self.snapshot.parts)[self.snapshot.places[[image]]]

    @functools.cached_property
    def cameras(self) -> list[str]:
        """See `Snapshot.cameras`."""
        return self.snapshot.cameras()

    @functools.cached_property
    def times(self) -> tuple[str, str] | None:
        """The first and the last time of an image, as they are written; None where none is known."""
        known = {crop.labels.time for crop in self.snapshot.crops if crop.labels.time}
        return (min(known, key=parse_time), max(known, key=parse_time)) if known else None

    @functools.cached_property
    def _by_place(self) -> np.ndarray:
        return np.argsort(self.snapshot.places, kind="stable")

    def content(self, image: int) -> bytes:
        """The bytes of an image's file, if they are those that were indexed.

        Raises Gone for a file that is missing, has changed, or lies outside of the index's folder, by whatever way.
        """
        crop, root = self.snapshot.crops[image], Path(self.snapshot.notes["root"])
        try:
            file = (root / crop.path).resolve(strict=True)
            if not file.is_relative_to(root.resolve(strict=True)):
                raise Gone("lies outside of the folder that was indexed")
            with open(file, "rb", opener=_open) as opened:
                status = os.fstat(opened.fileno())
                same = stat.S_ISREG(status.st_mode) and status.st_size == crop.size
                data = opened.read(crop.size) if same else b""
        except (OSError, RuntimeError, ValueError):
            raise Gone("can no longer be read") from None
        if not same or hashlib.sha256(data).digest() != self.snapshot.digests[image]:
            raise Gone("has changed since it was indexed")
        return data


def _open(path: str, flags: int) -> int:
    # Neither a link that was put there meanwhile is followed, nor a pipe waited for.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


class LiveIndex:
    """Gives the present `View` of an index, read anew where somebody has written meanwhile."""

    def __init__(self, folder: Path, model_id: str, dim: int) -> None:
        self.folder, self.model_id, self.dim = folder, model_id, dim
        self._reading = threading.Lock()
        self._state: tuple[int, ...] = ()
        self._view: View | None = None

    def view(self) -> View:
        """Raises InputError where the index is gone, broken, or was made anew by another model."""
        with self._reading:
            state = self._now()
            if self._view is None or state != self._state:
                snapshot = read_snapshot(self.folder, model_id=self.model_id, dim=self.dim)
                self._view = View(snapshot, *choose_search(snapshot))
                # Of before the reading: what was written during it is read once more.
                self._state = state
            return self._view

    def _now(self) -> tuple[int, ...]:
        notes = read_notes(self.folder)
        try:
            made = os.stat(self.folder / "manifest.sqlite").st_ino
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read: {error.strerror}") from None
        return made, int(notes["generation"]), int(notes["version"])
