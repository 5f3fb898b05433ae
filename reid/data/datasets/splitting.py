"""Drawing the persons and images to test on, for datasets that come without parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item", int, str)


def shuffled(items: Iterable[Item], seed: int) -> list[Item]:
    """The items in an order that follows from `seed` and their names alone: by the SHA-256 of both.

    No library's generator is asked, so that a split stays what it is under every version of everything.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}\0{item}".encode()).digest())


def choose_test_identities(images: Mapping[str, Mapping[str, Sequence[Any]]], share: float, seed: int) -> list[str]:
    """Who is tested: a share of the persons who can be asked for, at least one of them.

    images: person -> camera -> what is there. A person can be asked for who has images of two cameras, or two images
    where all are of one camera `""`, which stands for unknown cameras. At least one person of all is left for training.
    """
    able = [person for person, cameras in images.items() if len(cameras) > 1 or len(cameras.get("", ())) > 1]
    count = min(max(1, round(share * len(able))), len(able), len(images) - 1)
    return shuffled(able, seed)[:count]


def choose_queries(cameras: Mapping[str, Sequence[str]], seed: int) -> set[str]:
    """The queries among one person's images, camera -> paths; the others are the gallery.

    One image of each camera that keeps another in the gallery; where none does, one of all. A query thus always has a
    match by another camera, or, where cameras are unknown, a match.
    """
    several = [paths for paths in cameras.values() if len(paths) > 1]
    if several:
        return {shuffled(paths, seed)[0] for paths in several}
    return {shuffled([path for paths in cameras.values() for path in paths], seed)[0]}
