"""The current state of an index at each request, and the files of its images, which are all it reads of the disk."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path
from typing import Any

from reid.search import stores
from reid.search.gallery import IndexedImage, IndexView, check_model, check_tool_entries


class ImageUnavailable(Exception):
    """The file of an image is missing, has changed or must not be shown; the message is the reason."""


def read_file(root: Path, image: IndexedImage) -> bytes:
    """Read the file of an image.

    Args:
        root: The indexed folder.
        image: Image of the index.

    Returns:
        The content, which equals the indexed one.

    Raises:
        ImageUnavailable: If the file is missing, has changed or lies outside the indexed folder.
    """
    try:
        path = (root / image.crop.path).resolve(strict=True)
        if not path.is_relative_to(root.resolve(strict=True)):
            raise ImageUnavailable("lies outside the indexed folder")
        with open(path, "rb", opener=_open_regular) as file:
            status = os.fstat(file.fileno())
            same_size = stat.S_ISREG(status.st_mode) and status.st_size == image.crop.size
            data = file.read(image.crop.size) if same_size else b""
    except (OSError, RuntimeError, ValueError):
        raise ImageUnavailable("can no longer be read") from None
    if not same_size or hashlib.sha256(data).digest() != image.digest:
        raise ImageUnavailable("has changed since it was indexed")
    return data


def _open_regular(path: str, flags: int) -> int:
    # Does not follow a link that was created in the meantime, nor block on a pipe.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


class LiveIndex:
    """Provides the current `IndexView` of an index and rereads it after each change.

    Args:
        place: The place of the index, see `reid.search.stores`.
        model_id: The id of the model that searches.
        dim: Feature dimension of that model.
    """

    def __init__(self, place: stores.Place, model_id: str, dim: int) -> None:
        self.place, self.model_id, self.dim = place, model_id, dim
        self._lock = threading.Lock()
        self._state: tuple[Any, ...] = ()
        self._view: IndexView | None = None

    def view(self) -> IndexView:
        """Return the current state.

        Returns:
            The same object until the index changes.

        Raises:
            InputError: If the index is missing, corrupt, or was rebuilt by a different model.
        """
        with self._lock:
            state = stores.read_state(self.place)
            if self._view is None or state != self._state:
                view = stores.open_view(self.place)
                check_model(self.place, view.metadata, self.model_id, self.dim)
                check_tool_entries(self.place, view.metadata)
                self._view = view
                # The state before reading: after a change during it, the index is read once more.
                self._state = state
            return self._view
