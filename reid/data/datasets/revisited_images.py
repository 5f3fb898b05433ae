"""Images and ground truth of revisited Oxford and Paris, in their published layout."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reid.data.datasets.revisited import RevisitedGroundTruth, read_revisited
from reid.data.loading.whole_images import WholeImage
from reid.errors import InputError, unknown_name

PUBLISHED = ("roxford5k", "rparis6k")
_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class RevisitedImages:
    """Images and ground truth of one dataset.

    Attributes:
        name: Name of the dataset.
        truth: Relevant images per query, as indices into the gallery.
        query: Q regions to search for, in the order of `truth`.
        gallery: G whole images, in the order of `truth`.
    """

    name: str
    truth: RevisitedGroundTruth
    query: tuple[WholeImage, ...]
    gallery: tuple[WholeImage, ...]


def read_revisited_images(root: Path, name: str) -> RevisitedImages:
    """Read `NAME/gnd_NAME.pkl` (or `.json`) and locate its images, `NAME/jpg/*.jpg`, without decoding them.

    Args:
        root: The folder that contains the folder `name`, or that folder itself.
        name: Name of the dataset, such as "roxford5k".

    Returns:
        Ground truth and images.

    Raises:
        InputError: If a folder, the ground truth or an image is missing, or the ground truth is invalid.
    """
    folder = _folder(root, name)
    truth_file = next(
        (folder / f"gnd_{name}{s}" for s in (".pkl", ".json") if (folder / f"gnd_{name}{s}").is_file()), None
    )
    if truth_file is None:
        raise InputError(
            f"{folder}: gnd_{name}.pkl is missing; the ground truth is published separately from the images"
        )
    truth = read_revisited(truth_file)
    images = folder / "jpg"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; it must contain the images that {truth_file.name} lists, NAME.jpg")
    with os.scandir(images) as entries:
        present = {entry.name for entry in entries}
    listed = dict.fromkeys(f"{image}.jpg" for image in (*truth.queries, *truth.images))
    missing = [file for file in listed if file not in present]
    if missing:
        more = ", ..." if len(missing) > _MAX_EXAMPLES else ""
        raise InputError(
            f"{images}: {len(missing):,} of the {len(listed):,} images that {truth_file.name} lists are missing: "
            f"{', '.join(missing[:_MAX_EXAMPLES])}{more}; extract all image archives into this folder"
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
        raise InputError(f"{root}: no such folder; it must contain {name}/gnd_{name}.pkl and {name}/jpg/")
    known = sorted(path.parent.name for path in root.glob("*/gnd_*.*") if path.stem == f"gnd_{path.parent.name}")
    if known:
        raise unknown_name(f"dataset in {root}", name, known)
    raise InputError(
        f"{root}: no folder {name}; it must contain {name}/gnd_{name}.pkl and {name}/jpg/ "
        f"(published: {' and '.join(PUBLISHED)})"
    )
