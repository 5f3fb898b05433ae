"""What labels and files say about a split before an image is decoded.

Queries without a match, identities that are trained on and in the gallery, images that are query and gallery at once,
and cameras that may be numbers of images.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reid.errors import InputError
from reid.records import DISTRACTOR, ImageRecord, Split

logger = logging.getLogger(__name__)

_SINGLES = 0.9  # fraction of the persons' views by one camera that are a single image if that is an image number


def label_counts(split: Split) -> dict[str, int]:
    """Count what is doubtful in the labels of a split.

    Args:
        split: Dataset whose labels are counted.

    Returns:
        `queries_without_match`: queries whose identity no other camera of the gallery has seen;
        `identities_in_train_and_gallery`: identities that are trained on and in the gallery;
        `queries_in_gallery`: queries whose own image is left out of their ranking, see `separate_copies`.
    """
    cameras: dict[int, set[int]] = {}
    for image in split.gallery:
        if image.identity > DISTRACTOR:
            cameras.setdefault(image.identity, set()).add(image.camera)
    return {
        "queries_without_match": sum(not cameras.get(image.identity, set()) - {image.camera} for image in split.query),
        "identities_in_train_and_gallery": len(cameras.keys() & {image.identity for image in split.train}),
        "queries_in_gallery": split.copies,
    }


def describe_counts(split: Split) -> list[str]:
    """Describe the counts that are not 0.

    Args:
        split: Dataset whose labels are counted.

    Returns:
        A sentence for each, without a full stop.
    """
    counts = label_counts(split)
    sentences = {
        "queries_without_match": "{} of {:,} queries have no match in the gallery"
        + (" from another camera" if split.cameras_known else ""),
        "identities_in_train_and_gallery": "{} of {:,} identities of the gallery are trained on",
        "queries_in_gallery": "{} of {:,} queries are also gallery files: left out of their own ranking",
    }
    totals = {key: len(split.query) for key in counts} | {"identities_in_train_and_gallery": _gallery_identities(split)}
    return [sentences[key].format(f"{count:,}", totals[key]) for key, count in counts.items() if count]


def check_labels(split: Split, tolerance: float) -> None:
    """Refuse a split in which too much is doubtful, and warn of gallery copies of a query from another camera.

    Args:
        split: Dataset as it was read; its files exist.
        tolerance: Largest fraction of queries without a match, and of gallery identities that are trained on.

    Raises:
        InputError: If a fraction is larger.
    """
    counts = label_counts(split)
    for key, total, hint in (
        ("queries_without_match", len(split.query), "is another folder the gallery, or {camera} something else?"),
        ("identities_in_train_and_gallery", _gallery_identities(split), "is another folder the training set?"),
    ):
        if total and counts[key] / total > tolerance:
            sentence = next(
                line for line in describe_counts(split) if line.startswith(f"{counts[key]:,} of {total:,} ")
            )
            raise InputError(f"{split.name}: {sentence}; {hint} DATASETS.TOLERANCE 1.0 accepts it")
    if not split.cameras_known:
        return
    copies = find_copies(split.query, split.gallery)
    if copies:
        query, (first, *_) = next(iter(copies.items()))
        logger.warning(
            "%s: %d queries are in the gallery under another camera, which counts as a match; the first is %s and %s",
            split.name, len(copies), split.query[query].path, split.gallery[first].path,
        )  # fmt: skip


def _gallery_identities(split: Split) -> int:
    return len({image.identity for image in split.gallery if image.identity > DISTRACTOR})


def find_copies(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> dict[int, tuple[int, ...]]:
    """Find the queries whose file has the same content as a gallery image of their identity and another camera.

    Only files of equal size are read. Images of the same camera are no matches, and are not compared.

    Args:
        query: Query images.
        gallery: Gallery images.

    Returns:
        Index of the query -> indices of its copies, for each query that has one.

    Raises:
        OSError: If a file cannot be read.
    """
    identities = {image.identity for image in query}
    found: dict[tuple[int, int], list[int]] = {}
    for number, image in enumerate(gallery):
        if image.identity in identities and (size := _size(image.path)):
            found.setdefault((image.identity, size), []).append(number)
    digest = functools.cache(lambda path: hashlib.sha256(Path(path).read_bytes()).digest())
    copies = {}
    for number, image in enumerate(query):
        others = [
            other
            for other in found.get((image.identity, _size(image.path)), ())
            if gallery[other].camera != image.camera
        ]
        same = tuple(other for other in others if digest(gallery[other].path) == digest(image.path))
        if same:
            copies[number] = same
    return copies


def _size(path: str) -> int:
    """Size of a file in bytes; 0 for an empty or missing one, of which decoding reports the error."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def separate_copies(split: Split) -> Split:
    """Leave a query's own image out of its ranking where cameras are unknown.

    An image and its copies get a camera number of their own: the ranking removes gallery images of a query's identity
    and camera, so a copy is no match for its own query, but remains one for the others.

    Args:
        split: Dataset with unknown cameras.

    Returns:
        The dataset with new camera numbers and the number of such queries.
    """
    copies = find_copies(split.query, split.gallery)
    if not copies:
        return split
    numbers = {group: camera for camera, group in enumerate(dict.fromkeys(copies.values()), start=3)}
    query, gallery = list(split.query), list(split.gallery)
    for number, group in copies.items():
        query[number] = dataclasses.replace(query[number], camera=numbers[group])
        for other in group:
            gallery[other] = dataclasses.replace(gallery[other], camera=numbers[group])
    return dataclasses.replace(split, query=tuple(query), gallery=tuple(gallery), copies=len(copies))


def warn_of_image_numbers(split: Split) -> None:
    """Warn if what a pattern takes for the camera looks like the number of an image.

    Args:
        split: Dataset with cameras from a pattern.
    """
    images = [image for image in (*split.train, *split.query, *split.gallery) if image.identity > DISTRACTOR]
    cameras = Counter(image.camera for image in images)
    views = Counter((image.identity, image.camera) for image in images)
    singles = [sum(count == 1 for count in counts.values()) for counts in (cameras, views)]
    if len(cameras) > 2 and (2 * singles[0] > len(cameras) or singles[1] >= _SINGLES * len(views)):
        logger.warning(
            "%s: %d of %d cameras have one image, and %d of %d persons under a camera have one image: is {camera} in "
            "DATASETS.PATTERN the number of an image? {camera/2} takes each 2 consecutive numbers for one camera; "
            "without {camera}, cameras are unknown",
            split.name, singles[0], len(cameras), singles[1], len(views),
        )  # fmt: skip
