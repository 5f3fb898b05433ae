"""Market-1501+500k (Zheng et al., ICCV 2015): Market-1501 with 500,000 more distractors in its gallery."""

from __future__ import annotations

import os
from pathlib import Path

from reid.data.datasets.layout import is_image, locate, read_dataset
from reid.data.datasets.market1501 import LAYOUT
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.records import DISTRACTOR, ImageRecord, Split

ARCHIVE = "distractors_500k.zip"
# As the zip has it, and as it is often renamed to.
FOLDERS = ("distractors_500k", "distractors", "images")
IMAGES = 500_000


def read_market1501_500k(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read Market-1501 as `read_market1501` does, and the distractors from a folder or zip near it.

    The distractors are looked for in the folder of Market-1501, in `root` and, where `root` is a zip, beside it; they
    follow the gallery in the order of their names, with identity 0 and a camera of their own, one above Market-1501's
    highest. strict: the official counts must hold, 500,000 distractors among them. Raises `InputError`.
    """
    market = read_dataset(LAYOUT, root, strict=strict, cache=cache)
    folder = _locate_distractors(root.expanduser(), cache)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_image(entry.name) and entry.is_file())
    if not names:
        raise InputError(f"{folder}: holds no image; it must hold the distractors of {ARCHIVE}")
    if strict and len(names) != IMAGES:
        raise InputError(
            f"{folder} holds {len(names):,} distractors, not {IMAGES:,}; DATASETS.STRICT False accepts a subset"
        )
    camera = 1 + max(image.camera for image in (*market.train, *market.query, *market.gallery))
    distractors = tuple(ImageRecord(str(folder / name), DISTRACTOR, camera) for name in names)
    return Split("market1501_500k", market.train, market.query, market.gallery + distractors)


def _locate_distractors(root: Path, cache: Path) -> Path:
    places = dict.fromkeys((locate(LAYOUT, root, cache=cache), root if root.is_dir() else root.parent))
    for place in places:
        for name in FOLDERS:
            if (place / name).is_dir():
                return place / name
    for place in places:
        if (place / ARCHIVE).is_file():
            unpacked = extract_zip(place / ARCHIVE, parts=FOLDERS, cache=cache)
            return next(unpacked / name for name in FOLDERS if (unpacked / name).is_dir())
    looked = " and ".join(str(place) for place in places)
    raise InputError(
        f"no distractors of Market-1501+500k in {looked}: neither a folder {', '.join(FOLDERS)} nor {ARCHIVE}. "
        f"{LAYOUT.obtaining}"
    )
