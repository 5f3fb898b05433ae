"""The entities of a collection: their fields, filters, and the one that holds the metadata."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.search.gallery.contract import IndexedImage
from reid.search.gallery.crops import Crop, Labels, parse_time
from reid.search.gallery.manifest_entries import find_invalid_entry
from reid.search.milvus.connection import Collection, Connection, connect

METADATA_KEY = "metadata"
LABEL_FIELDS = ["path", "size", "changed", "identity", "camera", "time", "digest"]
# The entity of the metadata is marked as removed, so that no search finds it.
FOUND = "removed == false"
NO_TIME = -1e300
NO_FEATURE = -1  # checksum of an entity whose feature was dropped
_FEATURE_BYTES = 2**24  # of a call; servers accept 64 MB
_BATCH = 8192
_KEY_LENGTH = 32
_TEXT_LENGTH = 4096  # of a label, which is part of a path
_PATH_LENGTH = 65_535  # the largest that Milvus allows; this field also holds the metadata


def make_schema(dim: int) -> tuple[Any, Any]:
    """Describe the fields of a collection and its indexes.

    Args:
        dim: Number D of feature dimensions.

    Returns:
        Schema and index parameters.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=_KEY_LENGTH)
    schema.add_field("feature", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("path", DataType.VARCHAR, max_length=_PATH_LENGTH)
    for name in ("identity", "camera", "time", "digest"):
        schema.add_field(name, DataType.VARCHAR, max_length=_TEXT_LENGTH)
    for name in ("size", "changed", "content", "checksum"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("seconds", DataType.DOUBLE)
    schema.add_field("removed", DataType.BOOL)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("feature", index_type="AUTOINDEX", metric_type="L2")
    indexes.add_index("content", index_type="INVERTED")
    return schema, indexes


def batch_size(dim: int) -> int:
    """Return how many entities with features a call may hold.

    Args:
        dim: Feature dimension.

    Returns:
        Number of entities, at least 1.
    """
    return max(1, min(_BATCH, _FEATURE_BYTES // (4 * dim)))


def path_key(path: str) -> str:
    """Return the key of an image.

    Args:
        path: Path relative to the indexed folder.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.sha256(path.encode()).hexdigest()[:_KEY_LENGTH]


def content_id(digest: bytes) -> int:
    """Return the id of a content for clients.

    Args:
        digest: SHA-256 digest of the content.

    Returns:
        Number below 2^53, the largest integer of JavaScript.
    """
    return int.from_bytes(digest[:7], "big") >> 3


def make_entity(crop: Crop, digest: bytes, row: np.ndarray) -> dict[str, Any]:
    """Make the entity of an image.

    Args:
        crop: Path and labels.
        digest: SHA-256 digest of its content.
        row: (D,) float32 feature.

    Returns:
        Values by field.
    """
    labels, limit = crop.labels, -NO_TIME / 10
    seconds = min(max(parse_time(labels.time), -limit), limit) if labels.time else NO_TIME
    return {
        "key": path_key(crop.path),
        "feature": row,
        "path": crop.path,
        "size": crop.size,
        "changed": crop.mtime_ns,
        **labels._asdict(),
        "seconds": seconds,
        "digest": digest.hex(),
        "content": content_id(digest),
        "checksum": zlib.crc32(row),
        "removed": False,
    }


def to_image(entity: dict[str, Any]) -> IndexedImage:
    """Convert an entity with `LABEL_FIELDS`.

    Args:
        entity: Values by field.

    Returns:
        The image.
    """
    labels = Labels(entity["identity"], entity["camera"], entity["time"])
    digest = bytes.fromhex(entity["digest"])
    return IndexedImage(content_id(digest), Crop(entity["path"], entity["size"], entity["changed"], labels), digest)


def is_intact(entity: dict[str, Any]) -> bool:
    """Compare the feature of an entity with its checksum.

    Args:
        entity: Values by field, with `feature` and `checksum`.

    Returns:
        False if the feature is not as it was written.
    """
    return zlib.crc32(np.asarray(entity["feature"], dtype=np.float32)) == entity["checksum"]


def quote(values: Iterable[str]) -> str:
    """Write strings for a filter.

    Args:
        values: Any strings.

    Returns:
        A list such as `["a", "b"]`.
    """
    return json.dumps(list(values), ensure_ascii=False)


def make_filter(cameras: Sequence[str], time_range: tuple[float, float] | None) -> str:
    """Write the filter of a search.

    Args:
        cameras: Cameras to keep; all if empty.
        time_range: First and last time to keep; None for all.

    Returns:
        An expression that also leaves out removed images.
    """
    parts = [FOUND]
    if cameras:
        parts.append(f"camera in {quote(cameras)}")
    if time_range is not None:
        first, last = time_range
        parts.append(f"seconds >= {first!r}" if math.isfinite(first) else f"seconds > {NO_TIME!r}")
        if math.isfinite(last):
            parts.append(f"seconds <= {last!r}")
    return " and ".join(parts)


def is_index(collection: Collection) -> bool:
    """Check whether a collection holds an index.

    Args:
        collection: A collection that may be missing.

    Returns:
        False if there is no collection, or its creation was interrupted.

    Raises:
        InputError: If the server cannot be reached, or the collection holds something else.
    """
    if collection.file is not None and not collection.file.exists():
        return False
    connection = connect(collection)
    return bool(connection("has_collection")) and bool(load_metadata(connection))


def read_metadata(collection: Collection) -> dict[str, Any]:
    """Read the metadata of an index.

    Args:
        collection: A collection that may be missing.

    Returns:
        Plain values by name.

    Raises:
        InputError: If there is no index, or the server cannot be reached.
    """
    metadata = load_metadata(connect(collection)) if is_index(collection) else {}
    if not metadata:
        raise InputError(f"{collection}: no such index; build one with svdnet index")
    return metadata


def load_metadata(connection: Connection) -> dict[str, Any]:
    """Load the metadata of an existing collection.

    Args:
        connection: Connection to it.

    Returns:
        Plain values by name, empty if there are none yet.

    Raises:
        InputError: If the collection or the metadata is not that of an index.
    """
    place = connection.collection
    fields = {field["name"]: field for field in connection("describe_collection")["fields"]}
    if not {"key", "feature", "checksum", "seconds", *LABEL_FIELDS} <= fields.keys():
        raise InputError(f"{place}: is a collection of something else; choose another --index")
    connection("load_collection")
    rows = connection("query", filter=f"key in {quote([METADATA_KEY])}", output_fields=["path"])
    if not rows:
        return {}
    try:
        metadata = dict(json.loads(rows[0]["path"]))
    except (ValueError, TypeError, RecursionError):
        metadata = {}
    invalid = find_invalid_entry({"generation": 0, "version": 0, "shard": 1, **metadata})
    if invalid:
        raise InputError(f"{place}: the entry {invalid!r} of its metadata is missing or invalid; build a new index")
    width = int(fields["feature"]["params"]["dim"])
    if width != metadata["dim"]:
        raise InputError(f"{place}: a collection of width {width}, but its metadata says {metadata['dim']}")
    return metadata


def store_metadata(connection: Connection, metadata: dict[str, Any]) -> None:
    """Write the metadata of an index.

    Args:
        connection: Connection to the collection.
        metadata: Plain values by name, with `dim`.
    """
    feature = np.eye(1, metadata["dim"], dtype=np.float32)[0]  # Milvus requires one
    entity = make_entity(Crop(json.dumps(metadata), 0, 0, Labels()), b"", feature)
    connection("upsert", data=[{**entity, "key": METADATA_KEY, "checksum": NO_FEATURE, "removed": True}])
