"""Images of a dataset: identity, camera, part and file name of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from reid.data.synthetic.seeding import Stream, generator
from reid.errors import InputError
from reid.records import DISTRACTOR, JUNK

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
PARTS = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}
FOLDERS = {"market": "Market-1501-v15.09.15", "duke": "DukeMTMC-reID"}

CAMERAS_PER_IDENTITY = 3.6
"""Average of the training identities; that of the test identities follows from the number of queries."""
CLUTTER_SHARE = 0.22
"""Fraction of junk and distractors without a person."""


@dataclass(frozen=True)
class Size:
    """Counts of a dataset.

    Attributes:
        train: Number of training images.
        train_identities: Number of training identities.
        query: Number of queries.
        test_identities: Number of identities in query and gallery.
        gallery: Number of images of bounding_box_test, including junk and distractors.
        junk: Number of junk images.
        distractors: Number of distractor images.
        cameras: Number of cameras.
        single_camera_identities: Number of distractors with an identity of their own, which only one camera sees
            (layout duke).
    """

    train: int
    train_identities: int
    query: int
    test_identities: int
    gallery: int
    junk: int
    distractors: int
    cameras: int
    single_camera_identities: int = 0


SIZES: dict[tuple[str, str], Size] = {
    ("tiny", "market"): Size(64, 8, 24, 8, 84, 10, 10, 4),
    ("tiny", "duke"): Size(64, 8, 24, 8, 84, 0, 10, 8, 5),
    ("demo", "market"): Size(1600, 100, 400, 100, 1500, 200, 200, 6),
    ("demo", "duke"): Size(1600, 100, 400, 100, 1500, 0, 200, 8, 50),
    ("market", "market"): Size(12936, 751, 3368, 750, 19732, 3819, 2798, 6),
    ("market", "duke"): Size(16522, 702, 2228, 702, 17661, 0, 1900, 8, 408),
}


@dataclass(frozen=True)
class ImageSpec:
    """One image to render.

    Attributes:
        part: Folder of the image.
        name: File name within the folder.
        identity: Identity label in the name.
        camera: Camera label in the name.
        subject: The person shown: an identity (> 0), or a stranger who is in no other image (< 0).
        kind: "person", "cut" (a wrong detection) or "clutter" (no person).
        index: Index of the image among those of the subject in this part and camera.
    """

    part: str
    name: str
    identity: int
    camera: int
    subject: int
    kind: str
    index: int


def _size_of(size: str, layout: str) -> Size:
    for value, known, what in ((layout, FOLDERS, "layout"), (size, {name for name, _ in SIZES}, "size")):
        if value not in known:
            raise InputError(
                f"unknown {what} '{value}' of the synthetic dataset; it must be one of {', '.join(sorted(known))}"
            )
    return SIZES[size, layout]


def plan_images(size: str, layout: str, seed: int) -> list[ImageSpec]:
    """List all images of a dataset in the order in which they are rendered.

    Args:
        size: "tiny", "demo" or "market".
        layout: "market" or "duke".
        seed: Seed of the dataset.

    Returns:
        One entry per image, in rendering order.

    Raises:
        InputError: If the size or layout is unknown.
    """
    counts = _size_of(size, layout)
    rng = generator(seed, Stream.PLAN)
    identities = counts.train_identities + counts.test_identities + counts.single_camera_identities
    numbers = [int(number) + 1 for number in rng.permutation(identities)]
    train = sorted(numbers[: counts.train_identities])
    test = sorted(numbers[counts.train_identities : counts.train_identities + counts.test_identities])
    single_camera = sorted(numbers[counts.train_identities + counts.test_identities :])
    names = _Names(rng, layout)
    specs: list[ImageSpec] = []
    used: Counter[tuple[str, int, int]] = Counter()

    def add(part: str, identity: int, camera: int, subject: int, kind: str = "person") -> None:
        index = used[part, subject, camera]
        used[part, subject, camera] += 1
        specs.append(ImageSpec(part, names.next(identity, camera), identity, camera, subject, kind, index))

    def random_camera() -> int:
        return int(rng.integers(counts.cameras)) + 1

    seen = _sightings(rng, train, round(CAMERAS_PER_IDENTITY * len(train)), counts.cameras)
    for (identity, camera), images in zip(seen, random_partition(rng, counts.train, len(seen)), strict=True):
        for _ in range(images):
            add(TRAIN, identity, camera, identity)

    # One query per identity and camera; the other images of the same sightings are in the gallery.
    seen = _sightings(rng, test, counts.query, counts.cameras)
    matches = counts.gallery - counts.junk - counts.distractors
    for (identity, camera), images in zip(seen, random_partition(rng, matches, len(seen)), strict=True):
        add(QUERY, identity, camera, identity)
        for _ in range(images):
            add(GALLERY, identity, camera, identity)
    if counts.single_camera_identities:
        for identity, images in zip(
            single_camera, random_partition(rng, counts.distractors, len(single_camera)), strict=True
        ):
            camera = random_camera()
            for _ in range(images):
                add(GALLERY, identity, camera, identity)
    else:
        for stranger in range(counts.distractors):
            kind = "clutter" if rng.random() < CLUTTER_SHARE else "person"
            add(GALLERY, DISTRACTOR, random_camera(), -1 - stranger, kind)
    for _ in range(counts.junk):
        kind = "clutter" if rng.random() < CLUTTER_SHARE else "cut"
        add(GALLERY, JUNK, random_camera(), test[int(rng.integers(len(test)))], kind)
    return specs


def random_partition(rng: np.random.Generator, total: int, parts: int) -> list[int]:
    """Divide a number into random parts, some of them several times as large as others.

    Args:
        rng: Random generator; its state advances.
        total: Sum of the parts.
        parts: Number of parts.

    Returns:
        Integers of at least 1 that sum to `total`.
    """
    weights = rng.uniform(0.3, 1.7, parts)
    points = np.floor(np.cumsum(weights / weights.sum()) * (total - parts)).astype(int)
    points[-1] = total - parts
    return [int(share) + 1 for share in np.diff(points, prepend=0)]


def _sightings(rng: np.random.Generator, identities: list[int], pairs: int, cameras: int) -> list[tuple[int, int]]:
    """Sample `pairs` pairs (identity, camera), with at least two cameras per identity."""
    counts = np.full(len(identities), 2)
    while (missing := pairs - int(counts.sum())) > 0:
        room = np.flatnonzero(counts < cameras)
        counts[rng.permutation(room)[:missing]] += rng.random(min(missing, len(room))) < 0.5
    return [
        (identity, int(camera) + 1)
        for identity, count in zip(identities, counts, strict=True)
        for camera in sorted(rng.permutation(cameras)[:count])
    ]


class _Names:
    """Unique file names in the pattern of the layout."""

    def __init__(self, rng: np.random.Generator, layout: str) -> None:
        self.rng = rng
        self.layout = layout
        self.walk: tuple[int, int] | None = None
        self.sequence = self.frame = 0
        self.used: set[str] = set()

    def next(self, identity: int, camera: int) -> str:
        """Return the name of the next image of a walk; another identity or camera starts a walk at another time."""
        if (identity, camera) != self.walk or identity <= 0:
            self.walk = (identity, camera)
            self.sequence = int(self.rng.integers(1, 7))
            self.frame = int(self.rng.integers(1, 90000))
        while True:
            self.frame += int(self.rng.integers(10, 60))
            name = self._name(identity, camera)
            if name not in self.used:
                self.used.add(name)
                return name

    def _name(self, identity: int, camera: int) -> str:
        number = f"{identity:04d}" if identity >= 0 else str(identity)
        if self.layout == "duke":
            return f"{number}_c{camera}_f{self.frame:07d}.jpg"
        return f"{number}_c{camera}s{self.sequence}_{self.frame:06d}_{int(self.rng.integers(1, 8)):02d}.jpg"
