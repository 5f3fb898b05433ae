"""The images of revisited Oxford and Paris beside their ground truth, in the layout in which they are published."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.data.loading.whole_images import WholeImage
from reid.errors import InputError, unknown_name

PUBLISHED = ("roxford5k", "rparis6k")
_SHOWN = 3


@dataclass(frozen=True)
class RevisitedImages:
    """query: the Q boxes to be searched for. gallery: the G whole images, both in the order of `truth`."""

    name: str
    truth: RevisitedGroundTruth
    query: tuple[WholeImage, ...]
    gallery: tuple[WholeImage, ...]


def read_revisited_images(root: Path, name: str) -> RevisitedImages:
    """Read `NAME/gnd_NAME.pkl` (or `.json`) and find the images it names, `NAME/jpg/*.jpg`.

    root: the folder that holds the folder `name`, or that folder itself. Images are found here and decoded when they
    are used. Raises InputError for a missing folder or ground truth, what `read_revisited` refuses, and missing images:
    how many, and the first of them.
    """
    folder = _folder(root, name)
    truth_file = next(
        (folder / f"gnd_{name}{s}" for s in (".pkl", ".json") if (folder / f"gnd_{name}{s}").is_file()), None
    )
    if truth_file is None:
        raise InputError(f"{folder}: holds no gnd_{name}.pkl; the ground truth is published apart from the images")
    truth = read_revisited(truth_file)
    images = folder / "jpg"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; it must hold the images that {truth_file.name} names, NAME.jpg")
    with os.scandir(images) as entries:
        there = {entry.name for entry in entries}
    named = dict.fromkeys(f"{image}.jpg" for image in (*truth.queries, *truth.images))
    missing = [file for file in named if file not in there]
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise InputError(
            f"{images}: {len(missing):,} of the {len(named):,} images that {truth_file.name} names are missing: "
            f"{', '.join(missing[:_SHOWN])}{more}; unpack all archives of the images into this one folder"
        )
    query = tuple(
        WholeImage(str(images / f"{file}.jpg"), (float(b[0]), float(b[1]), float(b[2]), float(b[3])))
        for file, b in zip(truth.queries, truth.boxes, strict=True)
    )
    return RevisitedImages(name, truth, query, tuple(WholeImage(str(images / f"{file}.jpg")) for file in truth.images))


def _folder(root: Path, name: str) -> Path:
    root = root.expanduser()
    if (root / name).is_dir():
        return root / name
    if root.is_dir() and (root.name == name or any((root / f"gnd_{name}{s}").is_file() for s in (".pkl", ".json"))):
        return root
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; it must hold {name}/gnd_{name}.pkl and {name}/jpg/")
    known = sorted(path.parent.name for path in root.glob("*/gnd_*.*") if path.stem == f"gnd_{path.parent.name}")
    if known:
        raise unknown_name(f"dataset in {root}", name, known)
    raise InputError(
        f"{root}: holds no folder {name}; put {name}/gnd_{name}.pkl and {name}/jpg/ there "
        f"({' and '.join(PUBLISHED)} are published so)"
    )
