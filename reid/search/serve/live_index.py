"""The current state of an index at each request, and the files of its images, which are all it reads of the disk."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid.errors import InputError
from reid.search.gallery import (
    NeighborSearch,
    Snapshot,
    check_tool_entries,
    read_metadata,
    read_snapshot,
    select_search,
)
from reid.search.gallery.manifest import MANIFEST_NAME

# The id of an image combines its generation and feature row, so it stays valid while images are added and removed. Up
# to 2^53, the largest integer of JavaScript, there is room for 2 million generations of 4 billion rows.
_ROWS = 2**32


class ImageUnavailable(Exception):
    """The file of an image is missing, has changed or must not be shown; the message is the reason."""


@dataclass(frozen=True, eq=False)
class IndexView:
    """One state of an index.

    Attributes:
        snapshot: The images and features.
        neighbor_search: The search to use; None for exact search.
        search_description: The search in words.
    """

    snapshot: Snapshot
    neighbor_search: NeighborSearch | None
    search_description: str

    def image_id(self, image: int) -> int:
        """Return the id of an image for clients.

        Args:
            image: Index into the crops of the snapshot.

        Returns:
            The id, shared by images of the same content.
        """
        return int(self.snapshot.metadata["generation"]) * _ROWS + int(self.snapshot.rows[image])

    def find_id(self, image_id: int) -> int | None:
        """Find an image by id.

        Args:
            image_id: An id that `image_id` may have returned.

        Returns:
            The index of the image, the first by path if several share the id; None if there is no such image.
        """
        generation, row = divmod(image_id, _ROWS)
        if generation != self.snapshot.metadata["generation"]:
            return None
        images = self.snapshot.images_of_row(row)
        return int(images[0]) if len(images) else None

    def find_path(self, path: str) -> int | None:
        """Find an image by its exact path in the index, without accessing the disk.

        Args:
            path: A path relative to the indexed folder.

        Returns:
            The index of the image; None if there is no such image.
        """
        crops = self.snapshot.crops
        position = bisect_left(crops, path, key=lambda crop: crop.path)
        return position if position < len(crops) and crops[position].path == path else None

    def feature(self, image: int) -> np.ndarray:
        """Read the feature of an image.

        Args:
            image: Index into the crops of the snapshot.

        Returns:
            (1, D) float32.
        """
        return self.snapshot.read_rows(self.snapshot.rows[[image]])

    def read_file(self, image: int) -> bytes:
        """Read the file of an image.

        Args:
            image: Index into the crops of the snapshot.

        Returns:
            The content, which equals the indexed one.

        Raises:
            ImageUnavailable: If the file is missing, has changed or lies outside the indexed folder.
        """
        crop, root = self.snapshot.crops[image], Path(self.snapshot.metadata["root"])
        try:
            path = (root / crop.path).resolve(strict=True)
            if not path.is_relative_to(root.resolve(strict=True)):
                raise ImageUnavailable("lies outside the indexed folder")
            with open(path, "rb", opener=_open_regular) as file:
                status = os.fstat(file.fileno())
                same_size = stat.S_ISREG(status.st_mode) and status.st_size == crop.size
                data = file.read(crop.size) if same_size else b""
        except (OSError, RuntimeError, ValueError):
            raise ImageUnavailable("can no longer be read") from None
        if not same_size or hashlib.sha256(data).digest() != self.snapshot.digests[image]:
            raise ImageUnavailable("has changed since it was indexed")
        return data


def _open_regular(path: str, flags: int) -> int:
    # Does not follow a link that was created in the meantime, nor block on a pipe.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


class LiveIndex:
    """Provides the current `IndexView` of an index and rereads it after each change.

    Args:
        folder: The folder of the index.
        model_id: The id of the model that searches.
        dim: Feature dimension of that model.
    """

    def __init__(self, folder: Path, model_id: str, dim: int) -> None:
        self.folder, self.model_id, self.dim = folder, model_id, dim
        self._lock = threading.Lock()
        self._state: tuple[int, ...] = ()
        self._view: IndexView | None = None

    def view(self) -> IndexView:
        """Return the current state.

        Returns:
            The same object until the index changes.

        Raises:
            InputError: If the index is missing, corrupt, or was rebuilt by a different model.
        """
        with self._lock:
            state = self._read_state()
            if self._view is None or state != self._state:
                snapshot = read_snapshot(self.folder, model_id=self.model_id, dim=self.dim)
                check_tool_entries(self.folder, snapshot.metadata)
                self._view = IndexView(snapshot, *select_search(snapshot))
                # The state before reading: after a change during it, the index is read once more.
                self._state = state
            return self._view

    def _read_state(self) -> tuple[int, ...]:
        metadata = read_metadata(self.folder)
        try:
            inode = os.stat(self.folder / MANIFEST_NAME).st_ino
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read: {error.strerror}") from None
        return inode, int(metadata["generation"]), int(metadata["version"])
