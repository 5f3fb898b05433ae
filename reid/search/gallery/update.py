"""Bring an index up to date with a folder: new and changed crops are embedded, deleted ones are dropped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reid.errors import InputError
from reid.io.reading import NotRegularFile, read_file
from reid.progress import progress_bar
from reid.search.gallery.code_files import lacks_codes, write_codes
from reid.search.gallery.contract import IndexWriter
from reid.search.gallery.crops import GONE, Crop, CropListing, size_and_time
from reid.search.gallery.shard_files import ShardLayout
from reid.search.gallery.snapshot import read_snapshot
from reid.search.gallery.writer import Gallery

EmbedFunction = Callable[[Sequence[str]], np.ndarray]
DeferInterrupts = Callable[[], AbstractContextManager[None]]

# Images per call of the embedding function: in a long list, decoding overlaps with the network. The number grows as
# long as a call takes less than a second, which keeps the work between two commits short.
_FIRST_BATCH_SIZE, _BATCH_SIZE = 64, 1024
_BATCH_SECONDS = 1.0
_COMMIT_SECONDS = 2.0  # the work that a kill may lose
_COMMIT_IMAGES = 4096
_NO_PERMISSION = (errno.EACCES, errno.EPERM)


@dataclass
class UpdateSummary:
    """Counts of images and lists of paths of one update.

    Attributes:
        unchanged: Images with the same size and modification time as before.
        added: Images that were not in the index.
        changed: Images whose file has changed.
        relabeled: Images with new labels, because the pattern has changed.
        deleted: Images dropped because their file is gone.
        removed: Images skipped because the user removed them earlier.
        embedded: Contents that were embedded.
        unreadable: Reason by path for images that could not be read or have a zero feature. An image that only the
            permissions keep from being read stays in the index as it is.
        unmatched: Paths that do not match the pattern, indexed without labels.
        too_deep: Folders whose paths are longer than the system allows, which are not entered.
        modified: Files modified while they were read, left for the next update.
    """

    unchanged: int = 0
    added: int = 0
    changed: int = 0
    relabeled: int = 0
    deleted: int = 0
    removed: int = 0
    embedded: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    too_deep: tuple[str, ...] = ()
    modified: list[str] = field(default_factory=list)


def update_index(
    gallery: IndexWriter,
    listing: CropListing,
    embed: EmbedFunction,
    *,
    skip_unreadable: bool = True,
    reread: bool = False,
    progress: bool = True,
    defer_interrupts: DeferInterrupts = contextlib.nullcontext,
) -> UpdateSummary:
    """Make an index hold exactly the crops of a folder.

    Work is committed every few seconds, and also when an exception such as KeyboardInterrupt ends the update. An image
    is dropped only if its file is gone or is not an image anymore, never because the system cannot read it now.

    Args:
        gallery: The index, open for writing.
        listing: Result of `list_crops` for the folder.
        embed: Maps the full paths of n images to (n, D) float32 rows of unit length. It raises InputError for an image
            it cannot read and returns zeros for one without a feature, which is treated as unreadable.
        skip_unreadable: Skip unreadable images and drop paths that now hold one, instead of raising an error.
        reread: Also read files of unchanged size and modification time. Known contents are never embedded again.
        progress: Show a progress bar on a terminal.
        defer_interrupts: Returns a context that defers KeyboardInterrupt to its end, such as `StopSignal.held`.

    Returns:
        What was done.

    Raises:
        InputError: If an image is unreadable and `skip_unreadable` is false; all images before it are committed.
        OSError: If the system cannot read an image now: no file descriptors, no memory, an I/O error. All images before
            it are committed.
    """
    summary = UpdateSummary(
        unmatched=listing.unmatched,
        too_deep=listing.too_deep,
        unreadable=dict.fromkeys(listing.undecodable, "the name is not valid UTF-8"),
    )
    if listing.undecodable and not skip_unreadable:
        raise InputError(f"{listing.folder}: the name {listing.undecodable[0]!a} is not valid UTF-8; rename the file")
    changes = _compare(listing, gallery.images(), summary, reread)
    if changes.relabeled or changes.deleted:
        with defer_interrupts():
            gallery.commit(changes.relabeled, deleted=changes.deleted)
    summary.relabeled, summary.deleted = len(changes.relabeled), len(changes.deleted)
    if changes.to_read:
        updater = _Updater(gallery, listing.folder, embed, changes.known, summary, skip_unreadable, defer_interrupts)
        with progress_bar("index", len(changes.to_read), unit="images", shown=progress) as bar:
            _process_all(updater, changes.to_read, bar.advance)
    return summary


def update_codes(gallery: Gallery) -> int:
    """Write the 8-bit codes of large shards that lack them, with which exact search reads less.

    Args:
        gallery: The index, open for writing.

    Returns:
        Number of rows whose codes were written, at about 60,000 per second on one core at 512 dimensions.

    Raises:
        InputError: If a feature row is corrupt.
        OSError: If the disk is full.
    """
    snapshot = read_snapshot(gallery.folder)
    layout, encoded = ShardLayout.from_metadata(gallery.folder, snapshot.metadata), 0
    for number, shard in enumerate(snapshot.mapped):
        rows = np.arange(number * layout.shard_size, number * layout.shard_size + len(shard))
        checksums = snapshot.checksums[rows]
        if lacks_codes(layout, number, checksums) and write_codes(layout, number, snapshot.read_rows(rows), checksums):
            encoded += len(rows)
    return encoded


def _process_all(updater: _Updater, crops: Sequence[Crop], advance: Callable[[int], object]) -> None:
    """Process crops in batches that grow as long as they are quick; what is done is committed even if it ends early."""
    start, size = 0, min(_FIRST_BATCH_SIZE, _BATCH_SIZE)
    try:
        while start < len(crops):
            batch, begun = crops[start : start + size], time.monotonic()
            updater.process(batch)
            advance(len(batch))
            start += len(batch)
            if time.monotonic() - begun < _BATCH_SECONDS:
                size = min(2 * size, _BATCH_SIZE)
    finally:
        updater.commit()


@dataclass
class _Changes:
    """What distinguishes a folder from its index: crops to read, and which of them are known; new labels; no file."""

    to_read: list[Crop]
    known: set[str]
    relabeled: list[tuple[Crop, bytes]]
    deleted: list[str]


def _compare(
    listing: CropListing, images: Iterable[tuple[Crop, bytes, bool]], summary: UpdateSummary, reread: bool
) -> _Changes:
    """Compare a folder with its index in one pass over the index, and count in `summary` what needs no change."""
    crops, settled = {crop.path: crop for crop in listing.crops}, set[str]()
    changes = _Changes([], set(), [], [])
    for before, digest, removed in images:
        crop = crops.get(before.path)
        if crop is None:
            if not removed:  # a removed path is kept, in case its file comes back
                changes.deleted.append(before.path)
        elif removed:
            summary.removed += 1
            settled.add(crop.path)
        elif reread or (before.size, before.mtime_ns) != (crop.size, crop.mtime_ns):
            changes.known.add(crop.path)
        else:
            summary.unchanged += 1
            settled.add(crop.path)
            if before.labels != crop.labels:
                changes.relabeled.append((crop, digest))
    changes.to_read.extend(crop for crop in listing.crops if crop.path not in settled)
    return changes


class _Updater:
    """Embeds images in batches and holds them until they are committed."""

    def __init__(
        self,
        gallery: IndexWriter,
        folder: Path,
        embed: EmbedFunction,
        known_paths: set[str],
        summary: UpdateSummary,
        skip_unreadable: bool,
        defer_interrupts: DeferInterrupts,
    ) -> None:
        self.gallery, self.folder, self.embed, self.known_paths = gallery, folder, embed, known_paths
        self.summary, self.skip_unreadable, self.defer_interrupts = summary, skip_unreadable, defer_interrupts
        self.committed_digests = gallery.digests()
        self.crops: list[tuple[Crop, bytes]] = []
        self.features: dict[bytes, np.ndarray] = {}
        self.unreadable_paths: list[str] = []
        self.last_commit = time.monotonic()

    def process(self, crops: Sequence[Crop]) -> None:
        """Read and embed a batch of images; commit if it is time."""
        read: list[tuple[Crop, bytes]] = []
        new: dict[bytes, Crop] = {}
        for crop in crops:
            try:
                digest = hashlib.sha256(read_file(self.folder / crop.path)).digest()
            except NotRegularFile:
                self._report_unreadable(crop, "is no file anymore")
                continue
            except OSError as error:
                if error.errno not in (*GONE, *_NO_PERMISSION):
                    raise
                self._report_unreadable(crop, f"cannot be read: {error.strerror}", drop=error.errno in GONE)
                continue
            read.append((crop, digest))
            if digest not in self.committed_digests and digest not in self.features:
                new.setdefault(digest, crop)
        rows = self._embed_contents(new)
        self.summary.embedded += len(rows)
        # The content and features of a file that is being modified may not belong to its size and time.
        modified = {crop.path for crop, _ in read if not self._is_unmodified(crop)}
        rows = {digest: row for digest, row in rows.items() if new[digest].path not in modified}
        complete = []
        for crop, digest in read:
            if digest not in new or digest in rows:
                if crop.path not in modified:
                    complete.append((crop, digest))
            elif new[digest].path in modified:
                modified.add(crop.path)
            else:
                self._report_unreadable(crop, self.summary.unreadable[new[digest].path])
        self.summary.modified += sorted(modified)
        # Features first: an interrupt between the two leaves features without an image, which is harmless.
        self.features |= rows
        self.crops += complete
        if time.monotonic() - self.last_commit > _COMMIT_SECONDS or len(self.crops) >= _COMMIT_IMAGES:
            self.commit()

    def commit(self) -> None:
        """Commit the images held."""
        with self.defer_interrupts():
            crops, features, unreadable = self.crops, self.features, self.unreadable_paths
            self.crops, self.features, self.unreadable_paths = [], {}, []
            if crops or unreadable:
                self.gallery.commit(crops, features, deleted=unreadable)
            self.committed_digests |= set(features)
            changed = sum(crop.path in self.known_paths for crop, _ in crops)
            self.summary.changed += changed
            self.summary.added += len(crops) - changed
            self.last_commit = time.monotonic()

    def _embed_contents(self, new: dict[bytes, Crop]) -> dict[bytes, np.ndarray]:
        """Embed the contents that can be read."""
        digests, paths = list(new), [str(self.folder / crop.path) for crop in new.values()]
        if not paths:
            return {}
        rows, pending = dict[bytes, np.ndarray](), [slice(0, len(paths))]
        while pending:
            part = pending.pop()
            try:
                rows |= dict(zip(digests[part], self._embed_paths(paths[part]), strict=True))
            except InputError as error:
                if part.stop - part.start == 1:
                    reason = str(error).rpartition(f"{paths[part.start]}: ")[2]
                    self._report_unreadable(new[digests[part.start]], reason)
                else:  # the unreadable ones are found by halving
                    middle = (part.start + part.stop) // 2
                    pending += [slice(middle, part.stop), slice(part.start, middle)]
        for digest in [digest for digest, row in rows.items() if not row.any()]:
            del rows[digest]
            self._report_unreadable(new[digest], "its feature is all zero")
        return rows

    def _embed_paths(self, paths: list[str]) -> np.ndarray:
        rows = np.asarray(self.embed(paths))
        expected = len(paths), self.gallery.dim
        if rows.shape != expected:
            raise ValueError(f"the embedding of {len(paths)} images has shape {rows.shape}, expected {expected}")
        return rows

    def _report_unreadable(self, crop: Crop, reason: str, *, drop: bool = True) -> None:
        if not self.skip_unreadable:
            raise InputError(f"{self.folder / crop.path}: {reason}; use --broken skip to skip such images")
        self.summary.unreadable[crop.path] = reason
        if drop and crop.path in self.known_paths:
            self.unreadable_paths.append(crop.path)

    def _is_unmodified(self, crop: Crop) -> bool:
        try:
            status = os.stat(self.folder / crop.path)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        return size_and_time(status) == (crop.size, crop.mtime_ns)
