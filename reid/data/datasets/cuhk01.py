"""CUHK01 (Li, Zhao & Wang, ACCV 2012): 971 persons, two images from each of two cameras."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from reid.data.datasets.layout import Layout, PartCounts, check_counts, check_matches, locate, read_part
from reid.data.datasets.splitting import shuffled
from reid.records import Split

LAYOUT = Layout(
    name="cuhk01",
    title="CUHK01",
    folders=("CUHK01", "cuhk01"),
    archive="CUHK01.zip",
    pattern=re.compile(r"(?P<identity>\d{4})(?P<camera>00[1-4])\.[^.]+"),
    example="0001001.png",
    official={
        "train": PartCounts(images=1_940, identities=485, cameras=2),
        "query": PartCounts(images=972, identities=486, cameras=1),
        "gallery": PartCounts(images=972, identities=486, cameras=1),
    },
    availability="It is available from the Chinese University of Hong Kong under its terms",
    markers=("campus",),
)


def read_cuhk01(root: Path, *, strict: bool = True, cache: Path, seed: int = 0) -> Split:
    """Read CUHK01.

    The first four digits of a file name are the identity, the last three the image: 1 and 2 belong to camera 1 (A), 3
    and 4 to camera 2 (B). The authors published no split. As is common, half of the persons (485) are used for training
    and the others (486) for testing, with camera A as query and camera B as gallery. The halves are determined by
    `seed`: scores are comparable only for the same seed, and other codebases use other halves.

    Args:
        root: The folder that contains `campus`, a folder above it, or the official zip.
        strict: Whether the official counts must hold; otherwise any subset in the same layout is accepted.
        cache: Folder in which a zip is unpacked once.
        seed: Seed of the split.

    Returns:
        Split with training, query and gallery images; counts are checked if `strict`.

    Raises:
        InputError: If the dataset is missing, a file name cannot be parsed, or a count differs.
    """
    folder = locate(LAYOUT, root, cache=cache)
    images = [
        dataclasses.replace(image, camera=(image.camera + 1) // 2) for image in read_part(LAYOUT, folder / "campus")
    ]
    identities = shuffled({image.identity for image in images}, seed)
    train = set(identities[: len(identities) // 2])
    test = [image for image in images if image.identity not in train]
    split = Split(
        LAYOUT.name,
        train=tuple(image for image in images if image.identity in train),
        query=tuple(image for image in test if image.camera == 1),
        gallery=tuple(image for image in test if image.camera == 2),
    )
    check_matches(split, folder)
    if strict:
        check_counts(split, LAYOUT.official, "the official CUHK01", "DATASETS.STRICT False accepts a subset")
    return split
