"""The writer of an index in Milvus."""

from __future__ import annotations

from collections.abc import Collection as Items
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.search.gallery.crops import Crop
from reid.search.gallery.manifest import check_model
from reid.search.gallery.writer import check_rows
from reid.search.milvus import entities
from reid.search.milvus.candidates import RECALL_AT, count_images, measure_recall
from reid.search.milvus.connection import Collection, Connection, connect
from reid.search.milvus.entities import LABEL_FIELDS, METADATA_KEY, NO_FEATURE

_IMAGES = f'key != "{METADATA_KEY}"'
_KEYS = 1000  # of a filter
_LABEL_BATCH = 8192
_GROWTH = 1.5  # until recall is measured again
_MEASURED_IMAGES = 1_000_000  # up to which it is measured without being asked for, by reading all features


class MilvusIndex:
    """An index in Milvus, open for writing; see `reid.search.gallery.IndexWriter`.

    Several processes may write at the same time: an image is written under the key of its path, and the last one wins.

    Args:
        collection: A collection that holds an index.

    Raises:
        InputError: If it does not, or the server cannot be reached.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection, self._metadata = collection, entities.read_metadata(collection)
        self._connection: Connection = connect(collection)
        self.dim = int(self._metadata["dim"])

    @classmethod
    def create(
        cls, collection: Collection, *, model_id: str, dim: int, metadata: Mapping[str, Any] | None = None
    ) -> MilvusIndex:
        """Create an empty index.

        Args:
            collection: A collection that does not exist, or whose creation was interrupted.
            model_id: The id of the model that computes the features.
            dim: Number D of feature dimensions.
            metadata: Further plain values to store.

        Returns:
            The index, open for writing.

        Raises:
            InputError: If the collection holds anything.
        """
        connection = connect(collection)
        if connection("has_collection"):
            if entities.load_metadata(connection):
                raise InputError(f"{collection}: already holds an index; open it, or choose another --index")
            connection("drop_collection")  # left by a killed process, before it held anything
        schema, indexes = entities.make_schema(dim)
        # Strong: a search sees all that was written before, removals above all.
        connection("create_collection", schema=schema, index_params=indexes, consistency_level="Strong")
        entities.store_metadata(connection, {"model_id": model_id, "dim": dim, **(metadata or {})})
        return cls(collection)

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: the process keeps its connection."""

    def metadata(self) -> dict[str, Any]:
        """Load the metadata, see `IndexWriter.metadata`."""
        return dict(self._metadata)

    def check(self, model_id: str | None, dim: int | None, shard_size: int | None = None) -> None:
        """Check that the index fits a model, see `IndexWriter.check`; it has no files, so no `shard_size`."""
        check_model(self.collection, self._metadata, model_id, dim)
        if shard_size is not None:
            raise InputError("--shard: an index in --store has no files of its own; omit it")

    def set_metadata(self, **entries: Any) -> None:
        """Add or replace entries of the metadata, see `IndexWriter.set_metadata`."""
        if {**self._metadata, **entries} != self._metadata:
            self._metadata.update(entries)
            entities.store_metadata(self._connection, self._metadata)

    def images(self) -> Iterator[tuple[Crop, bytes, bool]]:
        """Read all known images in batches, see `IndexWriter.images`."""
        for entity in self._scan(_IMAGES, [*LABEL_FIELDS, "removed"], _LABEL_BATCH):
            image = entities.to_image(entity)
            yield image.crop, image.digest, bool(entity["removed"])

    def digests(self) -> set[bytes]:
        """Load the digests of all contents that have features, see `IndexWriter.digests`."""
        scanned = self._scan(f"{_IMAGES} and checksum != {NO_FEATURE}", ["digest"], _LABEL_BATCH)
        return {bytes.fromhex(entity["digest"]) for entity in scanned}

    def commit(
        self,
        crops: Sequence[tuple[Crop, bytes]] = (),
        features: Mapping[bytes, np.ndarray] | None = None,
        *,
        deleted: Iterable[str] = (),
    ) -> None:
        """Add or change images and drop others in batches, see `IndexWriter.commit`.

        Raises:
            InputError: If a row has a different dimension or length, and nothing has changed. If the server fails, and
                what was written before is kept; the rest can be written again.
        """
        features = dict(features or {})
        if features:
            rows = np.stack([np.asarray(row, dtype=np.float32) for row in features.values()])
            check_rows(rows, self.dim)
            features = dict(zip(features, rows, strict=True))
        size = entities.batch_size(self.dim)
        for start in range(0, len(crops), size):
            batch = crops[start : start + size]
            known = {**features, **self._load_features({digest for _, digest in batch} - features.keys())}
            lost = [crop.path for crop, digest in batch if digest not in known]
            if lost:
                raise InputError(
                    f"{self.collection}: the feature of {lost[0]} was deleted meanwhile; repeat the command"
                )
            self._connection(
                "upsert", data=[entities.make_entity(crop, digest, known[digest]) for crop, digest in batch]
            )
        self._delete([entities.path_key(path) for path in deleted])

    def set_removed(self, paths: Iterable[str], removed: bool) -> None:
        """Remove images from the results or restore them, see `IndexWriter.set_removed`.

        A restored image whose feature was dropped by `compact` is deleted, so that the next update embeds it again.
        """
        keys = [entities.path_key(path) for path in paths]
        size = min(_KEYS, entities.batch_size(self.dim))
        for start in range(0, len(keys), size):
            expression = f"key in {entities.quote(keys[start : start + size])}"
            found = list(self._scan(expression, ["*"], size))
            dropped = [] if removed else [entity["key"] for entity in found if entity["checksum"] == NO_FEATURE]
            kept = [entity for entity in found if entity["key"] not in dropped]
            if kept:
                self._connection("upsert", data=[{**entity, "removed": removed} for entity in kept])
            self._delete(dropped)

    def compact(self) -> int:
        """Drop the features of removed images, see `IndexWriter.compact`; those of deleted ones are gone already."""
        expression = f"{_IMAGES} and removed == true and checksum != {NO_FEATURE}"
        # Milvus requires a feature.
        empty = {"feature": np.eye(1, self.dim, dtype=np.float32)[0], "checksum": NO_FEATURE}
        fields, size = [*LABEL_FIELDS, "key", "seconds", "content", "removed"], entities.batch_size(self.dim)
        dropped = 0
        while found := self._connection("query", filter=expression, output_fields=fields, limit=size):
            self._connection("upsert", data=[{**entity, **empty} for entity in found])
            dropped += len(found)
        return dropped

    def find_corrupt(self) -> list[str]:
        """Compare all features with their checksums, see `IndexWriter.find_corrupt`."""
        fields = ["path", "feature", "checksum"]
        scanned = self._scan(f"{_IMAGES} and checksum != {NO_FEATURE}", fields, entities.batch_size(self.dim))
        return sorted(entity["path"] for entity in scanned if not entities.is_intact(entity))

    def finish(self, measure: bool = False) -> str:
        """Let Milvus index what was written, and measure its recall if the index has changed a lot since the last time.

        Measuring reads all features, so that of a large index is measured only if it is asked for.

        Args:
            measure: Measure it in any case.

        Returns:
            The recall in words, or what measuring it takes; "" if neither is needed.
        """
        self._connection("flush")
        images = count_images(self._connection)
        before = int((self._metadata.get("recall") or {}).get("images", 0))
        has_changed = not before / _GROWTH <= images <= before * _GROWTH
        if images < 2 or not (has_changed or measure):
            return ""
        if images > _MEASURED_IMAGES and not measure:
            size = 4 * self.dim * images / 1e9
            return f"Milvus index over {images:,} images: --recall measures its recall, by reading {size:.1f} GB"
        recall, queries = measure_recall(self._connection, self.dim)
        self.set_metadata(recall={"value": recall, "k": RECALL_AT, "queries": queries, "images": images})
        return f"Milvus index over {images:,} images: recall@{RECALL_AT} {recall:.4f} on {queries} images"

    def _load_features(self, digests: Items[bytes]) -> dict[bytes, np.ndarray]:
        """Load the features of contents that images of the index have."""
        wanted, loaded = list(digests), dict[bytes, np.ndarray]()
        for start in range(0, len(wanted), _KEYS):
            ids = [entities.content_id(digest) for digest in wanted[start : start + _KEYS]]
            expression = f"content in {ids} and checksum != {NO_FEATURE}"
            for entity in self._scan(expression, ["digest", "feature"], entities.batch_size(self.dim)):
                loaded[bytes.fromhex(entity["digest"])] = np.asarray(entity["feature"], dtype=np.float32)
        return loaded

    def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _KEYS):
            self._connection("delete", ids=keys[start : start + _KEYS])

    def _scan(self, expression: str, fields: list[str], size: int) -> Iterator[dict[str, Any]]:
        for batch in self._connection.scan(expression, fields, size):
            yield from batch
