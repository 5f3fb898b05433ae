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
    obtaining="It comes from the Chinese University of Hong Kong, whose terms hold",
    marks=("campus",),
)


def read_cuhk01(root: Path, *, strict: bool = True, cache: Path, seed: int = 0) -> Split:
    """Read CUHK01 from its folder `campus`, from a folder above it, or from its official zip.

    The first four digits of a name are the identity, the last three the image: 1 and 2 are of camera 1 (A), 3 and 4 of
    camera 2 (B). The authors published no parts; here, as is common, half of the persons (485) train and the others
    (486) test, camera A asking and camera B answering. Which ones follows from `seed`: scores compare only between
    equal seeds, and other codebases draw other halves. strict: the official counts must hold. Raises `InputError`.
    """
    folder = locate(LAYOUT, root, cache=cache)
    images = [
        dataclasses.replace(image, camera=(image.camera + 1) // 2) for image in read_part(LAYOUT, folder / "campus")
    ]
    identities = shuffled({image.identity for image in images}, seed)
    trained = set(identities[: len(identities) // 2])
    tested = [image for image in images if image.identity not in trained]
    split = Split(
        LAYOUT.name,
        train=tuple(image for image in images if image.identity in trained),
        query=tuple(image for image in tested if image.camera == 1),
        gallery=tuple(image for image in tested if image.camera == 2),
    )
    check_matches(split, folder)
    if strict:
        check_counts(split, LAYOUT.official, "the official CUHK01", "DATASETS.STRICT False accepts a subset")
    return split
