"""Random train/test splits by identity, for datasets without an official split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item", int, str)


def shuffled(items: Iterable[Item], seed: int) -> list[Item]:
    """Shuffle items by the SHA-256 of seed and item.

    No library's random generator is used, so that a split is the same with every version of every library.

    Args:
        items: Distinct numbers or strings.
        seed: Seed of the order.

    Returns:
        New list; the order depends only on the items and the seed.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}\0{item}".encode()).digest())


def choose_test_identities(images: Mapping[str, Mapping[str, Sequence[Any]]], fraction: float, seed: int) -> list[str]:
    """Choose the identities to test on, leaving at least one for training.

    An identity is eligible if it has images from two cameras or, where the camera is unknown, two images.

    Args:
        images: Identity -> camera -> its images; the camera "" stands for an unknown one.
        fraction: Fraction of the eligible identities to choose; at least one is chosen if there is any.
        seed: Seed of the choice.

    Returns:
        The chosen identities in shuffled order.
    """
    eligible = [person for person, cameras in images.items() if len(cameras) > 1 or len(cameras.get("", ())) > 1]
    count = min(max(1, round(fraction * len(eligible))), len(eligible), len(images) - 1)
    return shuffled(eligible, seed)[:count]


def choose_queries(cameras: Mapping[str, Sequence[str]], seed: int) -> set[str]:
    """Choose the queries among the images of one identity; the others form the gallery.

    One image is chosen per camera with at least two images, or a single image if there is no such camera. A query thus
    always has a match from another camera or, where the camera is unknown, a match.

    Args:
        cameras: Camera -> paths of its images.
        seed: Seed of the choice.

    Returns:
        Paths of the queries.
    """
    several = [paths for paths in cameras.values() if len(paths) > 1]
    if several:
        return {shuffled(paths, seed)[0] for paths in several}
    return {shuffled([path for paths in cameras.values() for path in paths], seed)[0]}
