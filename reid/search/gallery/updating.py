"""Bring an index up to what a folder holds: new and changed crops are embedded, vanished ones forgotten."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from reid.errors import InputError
from reid.search.gallery.crops import Crop, Names
from reid.search.gallery.writer import Gallery

Embed = Callable[[Sequence[str]], np.ndarray]
Hold = Callable[[], AbstractContextManager[None]]

_TOGETHER = 64  # images embedded at once
_SECONDS = 2.0  # of work that a kill may cost
_MOST = 4096  # images a commit


@dataclass
class Update:
    """What was done, in images. broken, unfit, unsettled: paths, with what is wrong with each broken one.

    unfit: names that do not fit the pattern, indexed without labels. unsettled: files that changed while they were
    read, left for the next time.
    """

    unchanged: int = 0
    added: int = 0
    changed: int = 0
    relabeled: int = 0
    vanished: int = 0
    removed: int = 0
    embedded: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    unfit: tuple[str, ...] = ()
    unsettled: list[str] = field(default_factory=list)


def update(
    gallery: Gallery,
    names: Names,
    embed: Embed,
    *,
    skip_broken: bool = True,
    reread: bool = False,
    progress: bool = True,
    hold: Hold = contextlib.nullcontext,
) -> Update:
    """Have an index hold the crops of a folder and nothing else.

    names: what `read_names` found. embed: full paths of n images -> (n, D) float32 rows of length 1; it raises
    InputError for an image it cannot read, and gives zeros for one without any feature, which counts as broken. A file
    of the same size and time as before is not opened, unless `reread`; one whose content is known is not embedded.
    skip_broken: go on without images that cannot be read; a path that was indexed and now holds a broken one is
    forgotten. hold: a context in which no KeyboardInterrupt is raised, such as `Stop.held`.

    Committed every few seconds; a KeyboardInterrupt commits what is embedded before it goes on. Raises InputError for a
    broken image where `skip_broken` is False, with everything before it committed.
    """
    done = Update(unfit=names.unfit, broken={path: "a name that is not in UTF-8" for path in names.unnameable})
    if names.unnameable and not skip_broken:
        raise InputError(f"{names.folder}: {names.unnameable[0]!a} has a name that is not in UTF-8; give it another")
    known, here = gallery.crops(), {crop.path for crop in names.crops}
    todo: list[Crop] = []
    relabeled: list[tuple[Crop, bytes]] = []
    for crop in names.crops:
        was, digest, removed = known.get(crop.path, (None, b"", False))
        if removed:
            done.removed += 1
        elif was is None or reread or (was.size, was.changed) != (crop.size, crop.changed):
            todo.append(crop)
        else:
            done.unchanged += 1
            if was.labels != crop.labels:
                relabeled.append((crop, digest))
    # A path that the user removed is remembered, should it come back.
    vanished = [path for path, (_, _, removed) in known.items() if path not in here and not removed]
    if relabeled or vanished:
        with hold():
            gallery.commit(relabeled, vanished=vanished)
    done.relabeled, done.vanished = len(relabeled), len(vanished)
    work = _Work(gallery, names.folder, embed, set(known), done, skip_broken, hold)
    try:
        with tqdm(total=len(todo), desc="index", unit="img", leave=False, disable=None if progress else True) as bar:
            for start in range(0, len(todo), _TOGETHER):
                some = todo[start : start + _TOGETHER]
                work.take(some)
                bar.update(len(some))
    finally:
        # What is embedded is worth keeping, however this ends.
        work.commit()
    return done


class _Work:
    """Images read and embedded, and not yet committed."""

    def __init__(
        self, gallery: Gallery, folder: Path, embed: Embed, known: set[str], done: Update, skip: bool, hold: Hold
    ) -> None:
        self.gallery, self.folder, self.embed, self.known = gallery, folder, embed, known
        self.done, self.skip_broken, self.hold = done, skip, hold
        self.contents = gallery.contents()
        self.crops: list[tuple[Crop, bytes]] = []
        self.features: dict[bytes, np.ndarray] = {}
        self.lost: list[str] = []
        self.since = time.monotonic()

    def take(self, crops: Sequence[Crop]) -> None:
        """Read and embed some images; commit where it is time."""
        read: list[tuple[Crop, bytes]] = []
        fresh: dict[bytes, Crop] = {}
        for crop in crops:
            try:
                digest = hashlib.sha256((self.folder / crop.path).read_bytes()).digest()
            except OSError as error:
                self._broken(crop, f"cannot be read: {error.strerror}")
                continue
            read.append((crop, digest))
            if digest not in self.contents and digest not in self.features:
                fresh.setdefault(digest, crop)
        rows = self._embedded(fresh)
        self.done.embedded += len(rows)
        # Of a file that changes now, neither content nor features are sure to be those of its size and time.
        unsettled = {crop.path for crop, _ in read if not self._settled(crop)}
        rows = {digest: row for digest, row in rows.items() if fresh[digest].path not in unsettled}
        whole = []
        for crop, digest in read:
            if digest not in fresh or digest in rows:
                if crop.path not in unsettled:
                    whole.append((crop, digest))
            elif fresh[digest].path in unsettled:
                unsettled.add(crop.path)
            else:
                self._broken(crop, self.done.broken[fresh[digest].path])
        self.done.unsettled += sorted(unsettled)
        # Features first: a stop between the two leaves some that no image has, which does no harm.
        self.features |= rows
        self.crops += whole
        if time.monotonic() - self.since > _SECONDS or len(self.crops) >= _MOST:
            self.commit()

    def commit(self) -> None:
        """Put what has been read into the index."""
        with self.hold():
            crops, features, lost = self.crops, self.features, self.lost
            self.crops, self.features, self.lost = [], {}, []
            if crops or lost:
                self.gallery.commit(crops, features, vanished=lost)
            self.contents |= set(features)
            changed = sum(crop.path in self.known for crop, _ in crops)
            self.done.changed += changed
            self.done.added += len(crops) - changed
            self.since = time.monotonic()

    def _embedded(self, fresh: dict[bytes, Crop]) -> dict[bytes, np.ndarray]:
        """Features of the contents that can be read."""
        digests, paths = list(fresh), [str(self.folder / crop.path) for crop in fresh.values()]
        if not paths:
            return {}
        found = {}
        try:
            found = dict(zip(digests, self._rows(paths), strict=True))
        except InputError:
            for digest, path in zip(digests, paths, strict=True):
                try:
                    found[digest] = self._rows([path])[0]
                except InputError as error:
                    self._broken(fresh[digest], str(error).rpartition(f"{path}: ")[2])
        for digest in [digest for digest, row in found.items() if not row.any()]:
            del found[digest]
            self._broken(fresh[digest], "its feature is zero")
        return found

    def _rows(self, paths: list[str]) -> np.ndarray:
        rows = np.asarray(self.embed(paths))
        if rows.shape != (len(paths), self.gallery.dim):
            raise ValueError(f"{len(paths)} images were embedded as {rows.shape}, not {len(paths), self.gallery.dim}")
        return rows

    def _broken(self, crop: Crop, why: str) -> None:
        if not self.skip_broken:
            raise InputError(f"{self.folder / crop.path}: {why}; --broken skip goes on without such images")
        self.done.broken[crop.path] = why
        if crop.path in self.known:
            self.lost.append(crop.path)

    def _settled(self, crop: Crop) -> bool:
        try:
            status = os.stat(self.folder / crop.path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (crop.size, crop.changed)
