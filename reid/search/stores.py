"""Where an index of crops is kept: a folder on this machine, or Milvus.

The functions below take either place and return what `IndexWriter` and `IndexView` promise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.search import gallery, milvus
from reid.search.gallery.manifest import MANIFEST_NAME

Place = Path | milvus.Collection


def find_place(index: Path, store: str | None) -> Place:
    """Return the place of an index.

    Args:
        index: Folder of the index; with a store the name of a collection.
        store: `milvus:URI`, see `milvus.parse_collection`; None for a folder.

    Returns:
        Folder or collection, which need not exist.

    Raises:
        InputError: If the store or the name is invalid.
    """
    return index if store is None else milvus.parse_collection(store, str(index))


def is_index(place: Place) -> bool:
    """Check whether a place holds an index.

    Args:
        place: Folder or collection.

    Returns:
        True if it was created completely.
    """
    return milvus.is_index(place) if isinstance(place, milvus.Collection) else gallery.is_index(place)


def open_writer(place: Place) -> gallery.IndexWriter:
    """Open an index for writing.

    Args:
        place: Folder or collection.

    Returns:
        The index.

    Raises:
        InputError: If there is none, or it cannot be written.
    """
    return milvus.MilvusIndex(place) if isinstance(place, milvus.Collection) else gallery.Gallery.open(place)


def create_writer(
    place: Place, *, model_id: str, dim: int, metadata: Mapping[str, Any], shard_size: int | None = None
) -> gallery.IndexWriter:
    """Create an empty index.

    Args:
        place: Folder or collection.
        model_id: The id of the model that computes the features.
        dim: Number D of feature dimensions.
        metadata: Further plain values to store.
        shard_size: Rows per file in a folder; None for the default.

    Returns:
        The index, open for writing.

    Raises:
        InputError: If the place holds anything already.
    """
    if isinstance(place, milvus.Collection):
        if shard_size is not None:
            raise InputError("--shard: an index in --store has no files of its own; omit it")
        return milvus.MilvusIndex.create(place, model_id=model_id, dim=dim, metadata=metadata)
    options = {} if shard_size is None else {"shard_size": shard_size}
    return gallery.Gallery.create(place, model_id=model_id, dim=dim, metadata=metadata, **options)


def read_metadata(place: Place) -> dict[str, Any]:
    """Read the metadata of an index without its images.

    Args:
        place: Folder or collection.

    Returns:
        Plain values by name.

    Raises:
        InputError: If there is no index, or it cannot be read.
    """
    return milvus.read_metadata(place) if isinstance(place, milvus.Collection) else gallery.read_metadata(place)


def read_state(place: Place) -> tuple[Any, ...]:
    """Read a value that differs after every change of an index.

    Args:
        place: Folder or collection.

    Returns:
        Values to compare.

    Raises:
        InputError: If there is no index, or it cannot be read.
    """
    if isinstance(place, milvus.Collection):
        return milvus.read_state(place)
    metadata = gallery.read_metadata(place)
    try:
        status = os.stat(place / MANIFEST_NAME)
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror}") from None
    # An index that was deleted and built again may have the same inode.
    return status.st_ino, status.st_mtime_ns, json.dumps(metadata, sort_keys=True)


def open_view(place: Place, *, faiss_beyond: int | None = None) -> gallery.IndexView:
    """Open an index for searching.

    Args:
        place: Folder or collection.
        faiss_beyond: Number of rows above which a folder is searched with FAISS, see `gallery.select_search`.

    Returns:
        The images of the index.

    Raises:
        InputError: If there is no index, or it cannot be read.
    """
    if isinstance(place, milvus.Collection):
        if faiss_beyond is not None:
            raise InputError("--faiss-beyond: an index in --store is searched by Milvus; omit it")
        return milvus.MilvusView(place)
    return gallery.open_snapshot_view(place, faiss_beyond=faiss_beyond)
