"""A snapshot and the search to use on it, as the commands and the page see an index."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reid.search.gallery.contract import IndexedImage, IndexSummary
from reid.search.gallery.faiss_file import select_search
from reid.search.gallery.search import NeighborSearch, SearchResult, search_snapshot
from reid.search.gallery.snapshot import Snapshot, read_snapshot

_TimeRange = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class SnapshotView:
    """One state of an index in a folder, see `IndexView`.

    Attributes:
        snapshot: The images and features.
        neighbor_search: The search to use without a filter; None for exact search.
        description: The search in words.
    """

    snapshot: Snapshot
    neighbor_search: NeighborSearch | None = None
    description: str = "exact"
    # The mask of the last filter, because a search is preceded by a count.
    _masks: dict[tuple[tuple[str, ...], _TimeRange], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.snapshot.folder.resolve().name

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the index."""
        return self.snapshot.metadata

    @property
    def summary(self) -> IndexSummary:
        """What the index holds."""
        snapshot = self.snapshot
        return IndexSummary(len(snapshot.crops), snapshot.cameras, snapshot.times, snapshot.kinds)

    def count(self, cameras: Sequence[str], time_range: _TimeRange) -> int:
        """Count the images that pass a filter, see `IndexView.count`."""
        return int(np.count_nonzero(self._mask(cameras, time_range)))

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        *,
        cameras: Sequence[str] = (),
        time_range: _TimeRange = None,
        exclude: Sequence[Collection[bytes]] = (),
    ) -> list[list[SearchResult]]:
        """Find the nearest images of every query by `search_snapshot`, see `IndexView.search`."""
        mask = self._mask(cameras, time_range)
        return search_snapshot(
            self.snapshot, queries, top_k, mask=mask, exclude=exclude, neighbor_search=self.neighbor_search
        )

    def describe_search(self, *, filtered: bool, advice: bool = False) -> str:
        """Describe the search, see `IndexView.describe_search`; one with a filter is exact."""
        return self.description if not filtered and (self.neighbor_search or advice) else "exact"

    def find_id(self, image_id: int) -> IndexedImage | None:
        """Find an image by id, see `IndexView.find_id`."""
        row = self.snapshot.row_of_id(image_id)
        if row is None or not len(images := self.snapshot.images_of_row(row)):
            return None
        return self._image(int(images[0]))

    def find_path(self, path: str) -> IndexedImage | None:
        """Find an image by its path without accessing the disk, see `IndexView.find_path`."""
        crops = self.snapshot.crops
        position = bisect_left(crops, path, key=lambda crop: crop.path)
        return self._image(position) if position < len(crops) and crops[position].path == path else None

    def feature(self, image: IndexedImage) -> np.ndarray:
        """Read the feature of an image, see `IndexView.feature`."""
        row = self.snapshot.row_of_id(image.id)
        assert row is not None
        return self.snapshot.read_rows(np.array([row]))

    def _image(self, position: int) -> IndexedImage:
        snapshot = self.snapshot
        row_id = snapshot.row_id(int(snapshot.rows[position]))
        return IndexedImage(row_id, snapshot.crops[position], snapshot.digests[position])

    def _mask(self, cameras: Sequence[str], time_range: _TimeRange) -> np.ndarray:
        key = (tuple(cameras), time_range)
        mask = self._masks.get(key)
        if mask is None:
            mask = self.snapshot.filter_mask(cameras, time_range)
            self._masks.clear()
            self._masks[key] = mask
        return mask


def open_snapshot_view(folder: Path, *, faiss_beyond: int | None = None) -> SnapshotView:
    """Read the current state of an index in a folder and choose how to search it.

    Args:
        folder: The folder of the index.
        faiss_beyond: See `select_search`.

    Returns:
        The view; later updates of the index do not change it.

    Raises:
        InputError: If `read_snapshot` or `select_search` raises it.
    """
    snapshot = read_snapshot(folder)
    return SnapshotView(snapshot, *select_search(snapshot, faiss_beyond))
