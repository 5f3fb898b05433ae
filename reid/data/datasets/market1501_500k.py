"""Market-1501+500k (Zheng et al., ICCV 2015): Market-1501 with 500,000 more distractors in its gallery."""

from __future__ import annotations

from pathlib import Path

from reid.data.datasets.layout import locate, read_dataset
from reid.data.datasets.market1501 import LAYOUT
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.io.image_files import list_images
from reid.records import DISTRACTOR, ImageRecord, Split

ARCHIVE = "distractors_500k.zip"
# Name in the zip and common other names.
FOLDERS = ("distractors_500k", "distractors", "images")
IMAGES = 500_000


def read_market1501_500k(root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read Market-1501 and the 500,000 additional distractors from a folder or zip nearby.

    The distractors are searched for in the folder of Market-1501, in `root` and, if `root` is a zip, next to it. They
    follow the gallery in the order of their names, with identity 0 and a camera number of their own, one above the
    highest of Market-1501.

    Args:
        root: Same as for `read_market1501`.
        strict: Whether the official counts must hold; otherwise any subset in the same layout is accepted.
        cache: Folder in which a zip is unpacked once.

    Returns:
        Split whose gallery ends with the distractors; counts are checked if `strict`.

    Raises:
        InputError: If a dataset is missing, a file name cannot be parsed, or a count differs.
    """
    market = read_dataset(LAYOUT, root, strict=strict, cache=cache)
    folder = _locate_distractors(root.expanduser(), cache)
    names = list_images(folder)
    if not names:
        raise InputError(f"{folder}: contains no image; it must contain the distractors of {ARCHIVE}")
    if strict and len(names) != IMAGES:
        raise InputError(
            f"{folder} contains {len(names):,} distractors, not {IMAGES:,}; DATASETS.STRICT False accepts a subset"
        )
    camera = 1 + max(image.camera for image in (*market.train, *market.query, *market.gallery))
    distractors = tuple(ImageRecord(str(folder / name), DISTRACTOR, camera) for name in names)
    return Split("market1501_500k", market.train, market.query, market.gallery + distractors)


def _locate_distractors(root: Path, cache: Path) -> Path:
    folders = dict.fromkeys((locate(LAYOUT, root, cache=cache), root if root.is_dir() else root.parent))
    for folder in folders:
        for name in FOLDERS:
            if (folder / name).is_dir():
                return folder / name
    for folder in folders:
        if (folder / ARCHIVE).is_file():
            unpacked = extract_zip(folder / ARCHIVE, folders=FOLDERS, cache=cache)
            return next(unpacked / name for name in FOLDERS if (unpacked / name).is_dir())
    searched = " and ".join(str(folder) for folder in folders)
    raise InputError(
        f"no distractors of Market-1501+500k in {searched}: neither a folder {', '.join(FOLDERS)} nor {ARCHIVE}. "
        f"{LAYOUT.availability}"
    )
