"""Reader of the folder layout of Market-1501: three parts, with labels in the file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.data.datasets.label_checks import describe_counts
from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.io.image_files import IMAGE_SUFFIXES, list_images, walk_images
from reid.records import DISTRACTOR, JUNK, ImageRecord, Split

PARTS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
FOLDER_PATTERN = "**/{identity}_c{camera}*"
"""DATASETS.PATTERN for the names of Market-1501, DukeMTMC-reID and CUHK03-NP in folders of any depth."""
_ANNOTATION = "gt_query"


@dataclass(frozen=True)
class PartCounts:
    """Counts of one part of a dataset.

    Attributes:
        images: Number of images, including junk and distractors.
        identities: Number of identities, without junk and distractors.
        cameras: Number of cameras.
        junk: Number of junk images.
        distractors: Number of distractor images.
    """

    images: int
    identities: int
    cameras: int
    junk: int = 0
    distractors: int = 0


@dataclass(frozen=True)
class Layout:
    """Folder layout of one dataset.

    Attributes:
        name: Key in `DATASETS`.
        title: Name as its authors write it.
        folders: Possible names of its folder, the official one first.
        archive: Name of the official zip, or "".
        pattern: Matches a file name, with the integer groups `identity` and `camera`.
        example: An example of a file name.
        official: Official counts of each part.
        availability: A sentence on where to obtain it, for error messages.
        markers: Files or folders, any of which identifies its folder; the folders are extracted from a zip.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    archive: str
    pattern: re.Pattern[str]
    example: str
    official: Mapping[str, PartCounts]
    availability: str
    markers: tuple[str, ...] = tuple(PARTS.values())


def read_dataset(layout: Layout, root: Path, *, strict: bool, cache: Path) -> Split:
    """Find a dataset, extract its zip if necessary, and read and check its three parts.

    Args:
        layout: Layout of the dataset.
        root: Same as for `locate`.
        strict: Whether the official counts must hold.
        cache: Folder in which a zip is extracted once.

    Returns:
        Split with training, query and gallery images; counts are checked if `strict`.

    Raises:
        InputError: If the dataset is missing, a file name cannot be parsed, or a count differs.
    """
    split = read_folder(layout, locate(layout, root, cache=cache))
    if strict:
        check_counts(split, layout.official, f"the official {layout.title}", "DATASETS.STRICT False accepts a subset")
    return split


def locate(layout: Layout, root: Path, *, cache: Path) -> Path:
    """Find the folder that contains the parts of a dataset.

    Args:
        layout: Layout of the dataset.
        root: That folder, a folder above it, the folder that contains the official zip, or the zip itself.
        cache: Folder in which a zip is extracted once.

    Returns:
        Folder that holds the parts, possibly extracted into `cache`.

    Raises:
        InputError: If there is no such folder or zip.
    """
    root = root.expanduser()
    folder = _find(layout, root, cache)
    if folder is not None:
        return folder
    expected = f"{layout.folders[0]}/" + (f" or {layout.archive}" if layout.archive else "")
    if root.is_file():
        remedy = "" if layout.archive else "extract it yourself and "
        raise InputError(f"{root}: neither a folder nor a zip; {remedy}pass the folder that contains {expected}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; it must contain {expected}. {layout.availability}")
    named = next((root / name for name in layout.folders if (root / name).is_dir()), None)
    if named is not None or root.name in layout.folders:
        folder = named or root
        raise InputError(
            f"{folder}: {layout.title} is incomplete; the folder {_content(folder)}, but neither "
            f"{' nor '.join(layout.markers)}"
        )
    raise InputError(
        f"{root}: {layout.title} not found; the folder {_content(root)}, but must contain {expected}. "
        f"{layout.availability}"
    )


def _content(folder: Path) -> str:
    entries = sorted(entry.name for entry in folder.iterdir())
    if not entries:
        return "is empty"
    return "contains " + ", ".join(entries[:4]) + (", ..." if len(entries) > 4 else "")


def is_present(layout: Layout, root: Path) -> bool:
    """Check whether `locate` would find the folder of a dataset without extracting a zip.

    Args:
        layout: Layout of the dataset.
        root: Same as for `locate`.

    Returns:
        Whether the folder exists.
    """
    return _find_folder(layout, root.expanduser()) is not None


def _find(layout: Layout, root: Path, cache: Path) -> Path | None:
    if root.is_file():
        return _extract(layout, root, cache) if layout.archive and root.suffix.lower() == ".zip" else None
    folder = _find_folder(layout, root)
    if folder is None and layout.archive:
        for archive in (root / layout.archive, *(root / name / layout.archive for name in layout.folders)):
            if archive.is_file():
                return _extract(layout, archive, cache)
    return folder


def _find_folder(layout: Layout, root: Path) -> Path | None:
    nested = [root / outer / inner for outer in layout.folders for inner in layout.folders]
    for folder in (root, *(root / name for name in layout.folders), *nested):
        if any((folder / marker).exists() for marker in layout.markers):
            return folder
    return None


def _extract(layout: Layout, archive: Path, cache: Path) -> Path:
    return extract_zip(archive, folders=(*layout.markers, _ANNOTATION), cache=cache)


def read_folder(layout: Layout, folder: Path, *, name: str | None = None) -> Split:
    """Read the three parts of a dataset without checking counts.

    Args:
        layout: Layout of the dataset.
        folder: Folder that contains the parts.
        name: Name of the split, if it is not that of the layout.

    Returns:
        The split, each part sorted by file name.

    Raises:
        InputError: If a folder is missing, a file name cannot be parsed, or no query has a match.
    """
    missing = [part for part in PARTS.values() if not (folder / part).is_dir()]
    if missing:
        raise InputError(
            f"{folder}: {layout.title} is incomplete; missing folder: {' and '.join(missing)}; the folder "
            f"{_content(folder)}"
        )
    parts = {part: read_part(layout, folder / subfolder) for part, subfolder in PARTS.items()}
    split = Split(name or layout.name, parts["train"], parts["query"], parts["gallery"])
    check_matches(split, folder)
    return split


def read_part(layout: Layout, folder: Path) -> tuple[ImageRecord, ...]:
    """Read the images of one folder.

    Args:
        layout: Layout of the dataset.
        folder: Folder of the images; subfolders are not read.

    Returns:
        The images sorted by file name.

    Raises:
        InputError: If there is no image or a file name cannot be parsed.
    """
    names = list_images(folder)
    if not names:
        below = next(walk_images(folder), None)
        hint = (
            f", but its subfolders do, such as {below}: read them with DATASETS.NAME folder and DATASETS.PATTERN "
            f"{FOLDER_PATTERN!r}"
            if below
            else f" ({', '.join(IMAGE_SUFFIXES)})"
        )
        raise InputError(f"{folder}: contains no image{hint}")
    records, invalid, from_zero = [], [], False
    for name in names:
        match = layout.pattern.fullmatch(name)
        if match is None or int(match["camera"]) < 1:
            invalid.append(name)
            from_zero |= match is not None
        else:
            records.append(ImageRecord(str(folder / name), int(match["identity"]), int(match["camera"])))
    if invalid:
        raise InputError(
            f"{folder / invalid[0]}: not a file name of {layout.title}, such as {layout.example} "
            f"({len(invalid):,} of {len(names):,} images in {folder.name} are named differently)"
            + ("; cameras count from 1, these from 0" if from_zero else "")
        )
    return tuple(records)


def check_matches(split: Split, folder: Path) -> None:
    """Check that at least one query has a match from another camera.

    Args:
        split: The split to check.
        folder: Where it was read from, for error messages.

    Raises:
        InputError: If no query has such a match.
    """
    cameras = {image.camera for image in (*split.query, *split.gallery) if image.identity != JUNK}
    if len(cameras) == 1:
        raise InputError(
            f"{folder}: all query and gallery images come from camera {min(cameras)}; a match must come from a "
            "different camera than its query, so there is nothing to evaluate"
        )
    seen = {(image.identity, image.camera) for image in split.gallery if image.identity > DISTRACTOR}
    cameras_of: dict[int, set[int]] = {}
    for identity, camera in seen:
        cameras_of.setdefault(identity, set()).add(camera)
    if not any(cameras_of.get(image.identity, set()) - {image.camera} for image in split.query):
        known = sum(image.identity in cameras_of for image in split.query)
        raise InputError(
            f"{folder}: no query has a true match, so there is nothing to evaluate: of {len(split.query):,} queries, "
            f"{known:,} have gallery images from their own camera only, the others have no gallery image"
        )


def count_part(images: Sequence[ImageRecord]) -> PartCounts:
    """Count the images of one part.

    Args:
        images: Images of the part.

    Returns:
        The counts. Junk and distractors are no identities, but their images and cameras are counted.
    """
    return PartCounts(
        images=len(images),
        identities=len({image.identity for image in images if image.identity > DISTRACTOR}),
        cameras=len({image.camera for image in images}),
        junk=sum(image.identity == JUNK for image in images),
        distractors=sum(image.identity == DISTRACTOR for image in images),
    )


def check_counts(
    split: Split, expected: Mapping[str, PartCounts], source: str, advice: str, *, folder: Path | None = None
) -> None:
    """Check the counts of a split.

    Args:
        split: The split to check.
        expected: Counts of each part.
        source: What the expected counts are, for error messages.
        advice: What to do about a difference.
        folder: Folder of the dataset, if it is not the parent of the first image's folder.

    Raises:
        InputError: If a part differs; all differences are listed.
    """
    differences = []
    for part, counts in expected.items():
        found = count_part(getattr(split, part))
        for quantity in PartCounts.__dataclass_fields__:
            actual, official = getattr(found, quantity), getattr(counts, quantity)
            if actual != official:
                differences.append(f"{part} has {actual:,} {quantity}, not {official:,}")
    if differences:
        folder = folder or Path(split.train[0].path).parent.parent
        raise InputError(f"{folder} differs from {source}: {'; '.join(differences)}; {advice}")


def split_table(split: Split) -> str:
    """Format the table `subset | # ids | # images | # cameras`.

    The gallery's line also contains the numbers of junk and distractor images. If the training images come from several
    datasets, each of them has a line. What is doubtful in the labels follows, see `label_checks.describe_counts`.

    Args:
        split: Dataset whose identities, images and cameras are counted.

    Returns:
        The lines of the table, below the name of the split.
    """
    lines = [f"{split.name}", "subset  |  # ids | # images | # cameras"]
    for part in PARTS:
        counts = count_part(getattr(split, part))
        line = _row(part, counts, split.cameras_known)
        if part == "gallery":
            line += f"   ({counts.junk:,} junk, {counts.distractors:,} distractors)"
        lines.append(line)
        if part == "train" and len(split.sources) > 1:
            for name, images in train_by_source(split).items():
                lines.append(f"{_row('', count_part(images))}   ({name})")
    return "\n".join(lines + describe_counts(split))


def _row(name: str, counts: PartCounts, cameras_known: bool = True) -> str:
    cameras = counts.cameras if cameras_known else "unknown"
    return f"{name:<7} | {counts.identities:>6,} | {counts.images:>8,} | {cameras:>9}"


def train_by_source(split: Split) -> dict[str, list[ImageRecord]]:
    """Group the training images by the dataset they come from.

    Args:
        split: The split, possibly combined from several datasets.

    Returns:
        Name of each of `split.sources` -> its images.
    """
    starts = sorted(split.sources, key=lambda source: source[1])
    images: dict[str, list[ImageRecord]] = {name: [] for name, _ in split.sources}
    for image in split.train:
        images[next(name for name, first in reversed(starts) if image.identity >= first)].append(image)
    return images
