"""The state of an index at one moment, for searching: later writes do not show."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.shards import Shards
from reid.ranking.exact.row_codes import RowCodes
from reid.search.gallery import manifest, manifest_rows
from reid.search.gallery.code_files import divide_by_codes
from reid.search.gallery.crops import Crop, parse_time
from reid.search.gallery.shard_files import ShardLayout, find_damaged

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
# The id of a row combines it with its generation, so it stays valid while images are added and removed. Up to 2^53, the
# largest integer of JavaScript, there is room for 2 million generations of 4 billion rows.
_ROWS = 2**32


@dataclass(frozen=True)
class Snapshot:
    """All searchable images in the order of their paths.

    Attributes:
        folder: The folder of the index.
        crops: Path and labels of the N images.
        rows: (N,) int64, the feature row of each image; images of the same content share one.
        digests: SHA-256 digest of the content of each image.
        mapped: (n_i, D) float32 memory maps of unit rows, tombstones included, which are not verified; use `read_rows`
            or `check_rows`.
        checksums: (n,) uint32, the CRC-32 of each row.
        metadata: The metadata of the index, see `manifest.load_metadata`.
    """

    folder: Path
    crops: tuple[Crop, ...] = field(repr=False)
    rows: np.ndarray = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    mapped: list[np.ndarray] = field(repr=False)
    checksums: np.ndarray = field(repr=False)
    metadata: dict[str, Any]

    @property
    def dim(self) -> int:
        """Feature dimension."""
        return int(self.metadata["dim"])

    @functools.cached_property
    def coded_parts(self) -> tuple[list[np.ndarray], list[RowCodes | None]]:
        """The rows of `mapped`, not verified, divided into those with codes and those without, and these codes."""
        return divide_by_codes(ShardLayout.from_metadata(self.folder, self.metadata), self.mapped, self.checksums)

    @functools.cached_property
    def active_rows(self) -> np.ndarray:
        """The rows that belong to an image, int64, ascending."""
        return np.unique(self.rows)

    @functools.cached_property
    def cameras(self) -> list[str]:
        """The known cameras, in numerical order."""
        return sort_cameras(crop.labels.camera for crop in self.crops)

    @functools.cached_property
    def times(self) -> tuple[str, str] | None:
        """The first and the last known time as written in the names; None if no time is known."""
        known = {crop.labels.time for crop in self.crops if crop.labels.time}
        return (min(known, key=parse_time), max(known, key=parse_time)) if known else None

    @functools.cached_property
    def kinds(self) -> dict[str, str]:
        """Meaning of the identities that name no person, see `special_identities`."""
        return special_identities({crop.labels.identity for crop in self.crops}, self.metadata.get("pattern"))

    def images_of_row(self, row: int) -> np.ndarray:
        """Find the images of a feature row.

        Args:
            row: Index of the row.

        Returns:
            int64 indices into `crops`, ascending; empty if the row is not active.
        """
        order, rows = self._by_row
        first, stop = np.searchsorted(rows, [row, row + 1])
        return order[first:stop]

    def row_id(self, row: int) -> int:
        """Return the id of a feature row for clients.

        Args:
            row: Index of the row.

        Returns:
            Number below 2^53, which refers to no other row until the index is built anew.
        """
        return int(self.metadata["generation"]) * _ROWS + row

    def row_of_id(self, row_id: int) -> int | None:
        """Return the feature row of an id.

        Args:
            row_id: An id that `row_id` may have returned.

        Returns:
            Index of the row, which need not exist; None for an id of another generation.
        """
        generation, row = divmod(row_id, _ROWS)
        return row if generation == self.metadata["generation"] else None

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Read some feature rows into memory and compare them with their checksums.

        Args:
            rows: (m,) integers, indices of rows.

        Returns:
            (m, D) float32.

        Raises:
            InputError: If a row is corrupt.
        """
        if not self.mapped:
            return np.empty((0, self.dim), dtype=np.float32)
        self.check_rows(rows)
        return Shards(self.mapped)[rows]

    def check_rows(self, rows: np.ndarray) -> None:
        """Compare some feature rows with their checksums, each at the first call only.

        Args:
            rows: (m,) integers, indices of rows.

        Raises:
            InputError: If a row is corrupt.
        """
        rows = rows[~self._verified[rows]]
        if not len(rows):
            return
        damaged = find_damaged(Shards(self.mapped), self.checksums, rows)
        if len(damaged):
            images = self.images_of_row(int(damaged[0]))
            first = f"that of {self.crops[images[0]].path}" if len(images) else f"row {damaged[0]}, without an image"
            raise InputError(
                f"{self.folder}: {len(damaged):,} feature rows do not match their checksums, first {first}; restore "
                "features/ from a copy, or delete the index and build it again"
            )
        self._verified[rows] = True

    def filter_mask(self, cameras: Sequence[str] = (), time_range: tuple[float, float] | None = None) -> np.ndarray:
        """Select images by camera and time.

        Args:
            cameras: Cameras to keep; all if empty.
            time_range: First and last time to keep, see `parse_time_range`; None for all.

        Returns:
            (N,) bool, True for images to keep.

        Raises:
            InputError: If no image has one of the cameras, or no image has a time.
        """
        labels = [crop.labels for crop in self.crops]
        mask = np.ones(len(labels), dtype=bool)
        if cameras:
            missing = [camera for camera in cameras if camera not in self.cameras]
            if missing:
                known = f"known are {', '.join(self.cameras[:20])}" if self.cameras else "index with --pattern"
                raise InputError(f"{self.folder}: no image of camera {missing[0]}; {known}")
            mask &= np.array([label.camera in cameras for label in labels], dtype=bool)
        if time_range is not None:
            times = np.array([parse_time(label.time) if label.time else math.nan for label in labels])
            if not np.isfinite(times).any():
                raise InputError(f"{self.folder}: no image has a time; index with {{time}} in the --pattern")
            mask &= (times >= time_range[0]) & (times <= time_range[1])
        return mask

    @functools.cached_property
    def _verified(self) -> np.ndarray:
        return np.zeros(len(self.checksums), dtype=bool)

    @functools.cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.rows, kind="stable")
        return order, self.rows[order]


def sort_cameras(cameras: Iterable[str]) -> list[str]:
    """List the known cameras.

    Args:
        cameras: Cameras of images, "" if unknown.

    Returns:
        Each once, in numerical order.
    """
    return sorted({*cameras} - {""}, key=lambda text: (len(text), text))


def special_identities(identities: set[str], pattern: str | None) -> dict[str, str]:
    """Find the labels of Market-1501 that name no person: "junk" for -1, "distractor" for 0.

    Other datasets may count people from 0, so 0 is a distractor only in a folder with the names of Market-1501 or one
    that also holds junk.

    Args:
        identities: Identities of the images.
        pattern: Pattern of the names; None if unknown.

    Returns:
        Meaning by identity.
    """
    kinds = {"-1": "junk"} if "-1" in identities else {}
    if "0" in identities and (kinds or pattern == "market1501"):
        kinds["0"] = "distractor"
    return kinds


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the metadata of an index without its images.

    Args:
        folder: The folder of the index.

    Returns:
        The same as `Snapshot.metadata`.

    Raises:
        InputError: If there is no index.
    """
    with manifest.translate_errors(folder), contextlib.closing(manifest.open_manifest(folder)) as connection:
        return manifest.load_metadata(connection)


def read_snapshot(folder: Path, *, model_id: str | None = None, dim: int | None = None) -> Snapshot:
    """Read the current state of an index, even while another process writes to it.

    Args:
        folder: The folder of the index.
        model_id: The id of the model that searches; None to accept any.
        dim: The feature dimension of the model; None to accept any.

    Returns:
        Consistent view of the images and features; later updates do not change it.

    Raises:
        InputError: If there is no index, or it is corrupt or was built by a different model.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        with manifest.translate_errors(folder), contextlib.closing(manifest.open_manifest(folder)) as connection:
            connection.execute("BEGIN")  # all reads see the same state; closing ends the transaction
            metadata, version = manifest.load_metadata(connection), manifest.format_version(connection)
            manifest.check_model(folder, metadata, model_id, dim)
            contents, known = manifest_rows.read_tables(connection)
        try:
            shards = ShardLayout.from_metadata(folder, metadata).map_rows(len(contents.digests))
            break
        except FileNotFoundError as error:
            # The index may have been compacted between reading the manifest and opening the files.
            if attempt == _ATTEMPTS:
                raise InputError(f"{error.filename}: missing from the index; build a new index") from None
    if version == manifest.FIRST_VERSION:
        logger.warning("%s: has no digests, so damage may go unnoticed; svdnet index adds them", folder)
    row_of = {digest: row for row, digest in enumerate(contents.digests)}
    images = [(crop, digest) for crop, digest, removed in known if not removed]
    rows = np.array([row_of[digest] for _, digest in images], dtype=np.int64)
    crops, digests = tuple(crop for crop, _ in images), tuple(digest for _, digest in images)
    return Snapshot(folder, crops, rows, digests, shards, contents.checksums, metadata)
