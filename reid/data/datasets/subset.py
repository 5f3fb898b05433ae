"""Subsets of the training identities, for experiments with less data and for validation."""

from __future__ import annotations

import dataclasses
import math

from reid.errors import InputError
from reid.records import ImageRecord, Split


def subset_identities(split: Split, fraction: float) -> Split:
    """Keep ⌈fraction · n⌉ of the n training identities, evenly spaced in their order and thus always the same ones.

    Args:
        split: Dataset with all training identities.
        fraction: Fraction of the identities to keep, in (0, 1].

    Returns:
        The split with fewer training images; query and gallery are unchanged.

    Raises:
        InputError: If fewer than two identities are left.
    """
    if fraction == 1:
        return split
    identities = list(split.train_labels())
    count = math.ceil(fraction * len(identities))
    if count < 2:
        raise InputError(
            f"DATASETS.IDENTITIES {fraction} leaves {count} of {len(identities)} training identities; at least 2 are "
            "required"
        )
    kept = _evenly_spaced(identities, count)
    return dataclasses.replace(split, train=tuple(image for image in split.train if image.identity in kept))


def hold_out_identities(split: Split, fraction: float) -> Split:
    """Test on ⌈fraction · n⌉ of the n training identities instead of the test set, to tune without looking at that.

    The identities are evenly spaced in their order, so they are the same in every run. As in Market-1501, the first
    image of every held-out identity under every camera is a query, and the others are the gallery. Images without a
    match under another camera stay in the gallery.

    Args:
        split: Dataset with all training identities.
        fraction: Fraction of the identities to hold out, in [0, 1); with 0 the split is returned unchanged.

    Returns:
        The split without the held-out identities in its training images, and with them as query and gallery. Its name
        ends in "-validation".

    Raises:
        InputError: If fewer than two identities are held out or left, or no held-out image has a match.
    """
    if fraction == 0:
        return split
    identities = list(split.train_labels())
    count = math.ceil(fraction * len(identities))
    if count < 2 or len(identities) - count < 2:
        raise InputError(
            f"DATASETS.VALIDATION {fraction} holds out {count} of {len(identities)} training identities; hold out at "
            "least 2 and leave at least 2"
        )
    held = _evenly_spaced(identities, count)
    train = tuple(image for image in split.train if image.identity not in held)
    query, gallery = _query_and_gallery([image for image in split.train if image.identity in held])
    if not query:
        raise InputError(
            f"DATASETS.VALIDATION {fraction}: no held-out image has a match under another camera; hold out more"
        )
    return dataclasses.replace(
        split, name=f"{split.name}-validation", train=train, query=tuple(query), gallery=tuple(gallery)
    )


def _evenly_spaced(identities: list[int], count: int) -> set[int]:
    return {identities[i * len(identities) // count] for i in range(count)}


def _query_and_gallery(images: list[ImageRecord]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Split into the first image of every identity and camera that has a match under another camera, and the others."""
    first: dict[tuple[int, int], ImageRecord] = {}
    for image in images:
        first.setdefault((image.identity, image.camera), image)
    chosen = set(first.values())
    remaining: dict[int, set[int]] = {}
    for image in images:
        if image not in chosen:
            remaining.setdefault(image.identity, set()).add(image.camera)
    query = [image for (person, camera), image in first.items() if remaining.get(person, set()) - {camera}]
    chosen = set(query)
    return query, [image for image in images if image not in chosen]
