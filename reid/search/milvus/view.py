"""An index in Milvus, as the commands and the page search it."""

from __future__ import annotations

import functools
import json
import math
import secrets
import time
from collections.abc import Collection as Items
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.search.gallery.contract import IndexedImage, IndexSummary
from reid.search.gallery.search import SearchResult, check_query, rank_results
from reid.search.gallery.snapshot import sort_cameras, special_identities
from reid.search.milvus import entities
from reid.search.milvus.candidates import SPARE, count_entities, count_images, find_candidates
from reid.search.milvus.connection import Collection, connect
from reid.search.milvus.entities import FOUND, LABEL_FIELDS, NO_TIME

_MAX_RESULTS = 16_384  # of a Milvus server
_SAMPLE = 1000  # entities per query for the cameras and times
_REFRESH_SECONDS = 5.0  # until the page counts images, cameras and times again

_TimeRange = tuple[float, float] | None


class MilvusView:
    """An index in Milvus, see `reid.search.gallery.IndexView`. Searches see what has been written until then.

    Args:
        collection: A collection that holds an index.

    Raises:
        InputError: If it does not, or the server cannot be reached.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.metadata: Mapping[str, Any] = entities.read_metadata(collection)
        self._connection = connect(collection)

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self.collection.name

    @functools.cached_property
    def summary(self) -> IndexSummary:
        """What the index held at the first access."""
        present = {identity for identity in ("-1", "0") if self._any(f"identity in {entities.quote([identity])}")}
        kinds = special_identities(present, self.metadata.get("pattern"))
        images = count_images(self._connection)
        return IndexSummary(images, self._cameras(), self._times(images), kinds)

    def count(self, cameras: Sequence[str], time_range: _TimeRange) -> int:
        """Count the images that pass a filter, see `IndexView.count`."""
        for camera in cameras:
            if not camera or not self._any(f"camera in {entities.quote([camera])}"):
                known = self._cameras()[:20]
                advice = f"known are {', '.join(known)}" if known else "index with --pattern"
                raise InputError(f"{self.collection}: no image of camera {camera}; {advice}")
        if time_range is not None and not self._any(f"seconds > {NO_TIME!r}"):
            raise InputError(f"{self.collection}: no image has a time; index with {{time}} in the --pattern")
        if not cameras and time_range is None:
            return self.summary.images
        return count_entities(self._connection, entities.make_filter(cameras, time_range))

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        *,
        cameras: Sequence[str] = (),
        time_range: _TimeRange = None,
        exclude: Sequence[Items[bytes]] = (),
    ) -> list[list[SearchResult]]:
        """Find the nearest images of every query among the candidates of Milvus, see `IndexView.search`.

        Raises:
            InputError: Also if `top_k` is more than Milvus returns, or a feature is corrupt.
        """
        check_query(queries, top_k, int(self.metadata["dim"]))
        if top_k > _MAX_RESULTS - SPARE:
            raise InputError(f"--top {top_k}: Milvus finds at most {_MAX_RESULTS - SPARE:,} images")
        results = []
        for number, query in enumerate(queries):
            expression = entities.make_filter(cameras, time_range)
            if exclude and exclude[number]:
                expression += f" and digest not in {entities.quote(digest.hex() for digest in exclude[number])}"
            distances, found = find_candidates(self._connection, query, top_k, expression, LABEL_FIELDS)
            for entity in found:
                self._check_feature(entity)
            images = [
                (float(distance), image.crop, image.id)
                for distance, image in zip(distances, map(entities.to_image, found), strict=True)
            ]
            results.append(rank_results(images, self.summary.kinds)[:top_k])
        return results

    def describe_search(self, *, filtered: bool, advice: bool = False) -> str:
        """Describe the search by its measured recall, see `IndexView.describe_search`."""
        recall = self.metadata.get("recall")
        if recall:
            measured = f"recall@{recall['k']} {recall['value']:.4f} when it held {recall['images']:,} images"
            return f"Milvus, {measured}; exact distances"
        return "Milvus, recall not measured" + ("; svdnet index --recall measures it" if advice else "")

    def find_id(self, image_id: int) -> IndexedImage | None:
        """Find an image by id, see `IndexView.find_id`; None if two contents share the id."""
        found = self._query(f"{FOUND} and content == {image_id}", LABEL_FIELDS)
        images = sorted(map(entities.to_image, found), key=lambda image: image.crop.path)
        return images[0] if len({image.digest for image in images}) == 1 else None

    def find_path(self, path: str) -> IndexedImage | None:
        """Find an image by its path, see `IndexView.find_path`."""
        found = self._query(f"{FOUND} and {_with_path(path)}", LABEL_FIELDS)
        return entities.to_image(found[0]) if found else None

    def feature(self, image: IndexedImage) -> np.ndarray:
        """Read the feature of an image, see `IndexView.feature`.

        Raises:
            InputError: If it is not as it was written, or the image was deleted meanwhile.
        """
        found = self._query(_with_path(image.crop.path), ["path", "feature", "checksum"])
        if not found:
            raise InputError(f"{self.collection}: {image.crop.path} was deleted meanwhile; search again")
        self._check_feature(found[0])
        return np.asarray(found[0]["feature"], dtype=np.float32)[None]

    def _check_feature(self, entity: dict[str, Any]) -> None:
        if not entities.is_intact(entity):
            raise InputError(
                f"{self.collection}: the feature of {entity['path']} does not match its checksum; build a new index"
            )

    def _cameras(self) -> list[str]:
        """All known cameras, some of them per query."""
        known = [""]
        while found := self._query(f"{FOUND} and camera not in {entities.quote(known)}", ["camera"], limit=_SAMPLE):
            known += {entity["camera"] for entity in found}
        return sort_cameras(known)

    def _times(self, images: int) -> tuple[str, str] | None:
        """The first and the last time: of a random sample, then of what is beyond, until nothing is."""
        timed = f"{FOUND} and seconds > {NO_TIME!r}"
        # Keys are digests, so those with the same first digits are a random sample.
        digits = max(0, math.ceil(math.log(max(images, 1) / _SAMPLE, 16)))
        found = self._query_times(f'{timed} and key like "{secrets.token_hex(8)[:digits]}%"') or self._query_times(
            timed
        )
        if not found:
            return None
        ends = []
        for choose, relation in ((min, "<"), (max, ">")):
            end, beyond = found[0], found
            while beyond:
                end = choose((end, *beyond), key=lambda entity: entity["seconds"])
                beyond = self._query_times(f"{timed} and seconds {relation} {end['seconds']!r}")
            ends.append(end["time"])
        return ends[0], ends[1]

    def _query_times(self, expression: str) -> list[dict[str, Any]]:
        return self._query(expression, ["seconds", "time"], limit=_SAMPLE)

    def _any(self, expression: str) -> bool:
        return bool(self._query(f"{FOUND} and {expression}", ["key"], limit=1))

    def _query(self, expression: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        return list(self._connection("query", filter=expression, output_fields=fields, **options))


def read_state(collection: Collection) -> tuple[Any, ...]:
    """Read a value that differs when the metadata of an index has changed, or some seconds have passed.

    Args:
        collection: A collection that holds an index.

    Returns:
        Values to compare.

    Raises:
        InputError: If there is no index, or the server cannot be reached.
    """
    metadata = json.dumps(entities.read_metadata(collection), sort_keys=True)
    return metadata, int(time.monotonic() / _REFRESH_SECONDS)


def _with_path(path: str) -> str:
    return f"key in {entities.quote([entities.path_key(path)])}"
