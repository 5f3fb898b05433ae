"""What a store of features offers to the commands and to the page: a writer, and a view to search.

`Gallery` and `SnapshotView` keep an index in a folder, `reid.search.milvus` keeps it in Milvus.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np

from reid.search.gallery.crops import Crop
from reid.search.gallery.search import SearchResult


class IndexedImage(NamedTuple):
    """An image of an index.

    Attributes:
        id: Number below 2^53 for clients, shared by images of the same content.
        crop: Path and labels.
        digest: SHA-256 digest of the content.
    """

    id: int
    crop: Crop
    digest: bytes


@dataclass(frozen=True)
class IndexSummary:
    """What an index holds.

    Attributes:
        images: Number of images that can be found.
        cameras: The known cameras, in numerical order.
        times: The first and the last known time as written in the names; None if no time is known.
        kinds: Meaning of the labels that name no person, see `Snapshot.kinds`.
    """

    images: int
    cameras: list[str]
    times: tuple[str, str] | None
    kinds: dict[str, str]


class IndexWriter(Protocol):
    """An index open for writing, as a context manager that closes it. Committed changes survive a kill."""

    @property
    def dim(self) -> int:
        """Feature dimension D."""
        ...

    def __enter__(self) -> IndexWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def metadata(self) -> dict[str, Any]:
        """Load the metadata.

        Returns:
            `model_id`, `dim` and what was given to `set_metadata`.
        """
        ...

    def check(self, model_id: str | None, dim: int | None, shard_size: int | None = None) -> None:
        """Check that the index fits a model.

        Args:
            model_id: The id of the model; None to accept any.
            dim: The feature dimension of the model; None to accept any.
            shard_size: Rows per file; None to accept any.

        Raises:
            InputError: If one differs.
        """
        ...

    def set_metadata(self, **entries: Any) -> None:
        """Add or replace entries of the metadata.

        Args:
            **entries: Plain values by name.
        """
        ...

    def images(self) -> Iterator[tuple[Crop, bytes, bool]]:
        """Read all known images, without holding more than a batch of them where that is possible.

        Returns:
            For each image, in any order: the crop, the digest of its content, and whether the user removed it.
        """
        ...

    def digests(self) -> set[bytes]:
        """Load the digests of all contents that have features.

        Returns:
            SHA-256 digests.
        """
        ...

    def commit(
        self,
        crops: Sequence[tuple[Crop, bytes]] = (),
        features: Mapping[bytes, np.ndarray] | None = None,
        *,
        deleted: Iterable[str] = (),
    ) -> None:
        """Add or change images and drop others.

        Args:
            crops: Images to add or change, each with the digest of its content.
            features: (D,) rows of unit length, by digest, of contents that have none yet.
            deleted: Paths to drop.

        Raises:
            InputError: If a row has a different dimension or length.
        """
        ...

    def set_removed(self, paths: Iterable[str], removed: bool) -> None:
        """Remove images from the results for good, although their files stay, or restore them.

        Args:
            paths: Paths of known images.
            removed: True to remove, False to restore.
        """
        ...

    def compact(self) -> int:
        """Drop the features of removed and deleted images.

        Returns:
            Number of dropped features.
        """
        ...

    def find_corrupt(self) -> list[str]:
        """Compare all features with their checksums.

        Returns:
            Paths of the images whose features are corrupt.
        """
        ...


class IndexView(Protocol):
    """The images of an index, to be searched. All methods raise InputError if the index cannot be read."""

    @property
    def name(self) -> str:
        """Name of the index for clients, which holds no path or address."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the index."""
        ...

    @property
    def summary(self) -> IndexSummary:
        """What the index holds."""
        ...

    def count(self, cameras: Sequence[str], time_range: tuple[float, float] | None) -> int:
        """Count the images that pass a filter.

        Args:
            cameras: Cameras to keep; all if empty.
            time_range: First and last time to keep; None for all.

        Returns:
            Number of images.

        Raises:
            InputError: If no image has one of the cameras, or no image has a time.
        """
        ...

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        *,
        cameras: Sequence[str] = (),
        time_range: tuple[float, float] | None = None,
        exclude: Sequence[Collection[bytes]] = (),
    ) -> list[list[SearchResult]]:
        """Find the nearest images of every query.

        Args:
            queries: (Q, D) float32 rows of unit length.
            top_k: Number of results per query, at least 1; fewer are returned if fewer images qualify.
            cameras: Cameras to keep; all if empty.
            time_range: First and last time to keep; None for all.
            exclude: For each query, digests of contents to leave out; empty for none.

        Returns:
            For each query its results by exact distance, ties by path.

        Raises:
            InputError: If `top_k` is below 1 or the dimensions differ.
        """
        ...

    def describe_search(self, *, filtered: bool, advice: bool = False) -> str:
        """Describe how a search finds its results.

        Args:
            filtered: Whether a filter leaves out images.
            advice: Add what the owner of the index can do better, which may name its place.

        Returns:
            "exact", or the index used and its recall.
        """
        ...

    def find_id(self, image_id: int) -> IndexedImage | None:
        """Find an image by id.

        Args:
            image_id: Id of a search result.

        Returns:
            The image, the first by path if several share the id; None if there is no such image.
        """
        ...

    def find_path(self, path: str) -> IndexedImage | None:
        """Find an image by its exact path in the index.

        Args:
            path: A path relative to the indexed folder.

        Returns:
            The image; None if there is no such image.
        """
        ...

    def feature(self, image: IndexedImage) -> np.ndarray:
        """Read the feature of an image.

        Args:
            image: An image of this view.

        Returns:
            (1, D) float32.
        """
        ...
