"""The folder layout Market-1501 introduced, read into a checked `Split`: three parts, labels in the file names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.errors import InputError
from reid.io.archive import extract_zip
from reid.records import DISTRACTOR, JUNK, ImageRecord, Split

PARTS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_ANNOTATION = "gt_query"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class PartCounts:
    """What one part holds: all images, the persons among their labels, the cameras, the junk and distractor images."""

    images: int
    identities: int
    cameras: int
    junk: int = 0
    distractors: int = 0


@dataclass(frozen=True)
class Layout:
    """How one dataset is laid out.

    name: key in `DATASETS`. title: as its authors write it. folders: names its folder goes by, the official one first.
    archive: the official zip, "" where there is none. pattern: matches a file name; the groups `identity` and `camera`
    are integers. example: such a name. official: the counts of each part. obtaining: where a user may get it. marks:
    files or folders in its folder, by one of which it is known; those that are folders are what a zip is unpacked for.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    archive: str
    pattern: re.Pattern[str]
    example: str
    official: Mapping[str, PartCounts]
    obtaining: str
    marks: tuple[str, ...] = tuple(PARTS.values())


def read_dataset(layout: Layout, root: Path, *, strict: bool, cache: Path) -> Split:
    """Find the dataset under `root` (unpacking its zip where need be), read its three parts and check them.

    strict: the official counts must hold. Raises `InputError`.
    """
    split = read_folder(layout, locate(layout, root, cache=cache))
    if strict:
        check_counts(split, layout.official, f"the official {layout.title}", "DATASETS.STRICT False accepts a subset")
    return split


def locate(layout: Layout, root: Path, *, cache: Path) -> Path:
    """The folder that holds the parts of the dataset.

    `root` is that folder, a folder above it, the folder that holds the official zip, or the zip itself.
    """
    root = root.expanduser()
    found = _find(layout, root, cache)
    if found is not None:
        return found
    wanted = f"{layout.folders[0]}/" + (f" or {layout.archive}" if layout.archive else "")
    if root.is_file():
        remedy = "" if layout.archive else "unpack it by hand and "
        raise InputError(f"{root}: neither a folder nor a zip; {remedy}give the folder that holds {wanted}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; it must hold {wanted}. {layout.obtaining}")
    entries = sorted(entry.name for entry in root.iterdir())
    holds = "is empty" if not entries else "holds " + ", ".join(entries[:4]) + (", ..." if len(entries) > 4 else "")
    raise InputError(f"{root}: no {layout.title} here, it {holds}; it must hold {wanted}. {layout.obtaining}")


def is_there(layout: Layout, root: Path) -> bool:
    """Whether the dataset lies unpacked at or below `root`, where `locate` looks."""
    return _find_folder(layout, root.expanduser()) is not None


def _find(layout: Layout, root: Path, cache: Path) -> Path | None:
    if root.is_file():
        return _unpacked(layout, root, cache) if layout.archive and root.suffix.lower() == ".zip" else None
    folder = _find_folder(layout, root)
    if folder is None and layout.archive:
        for archive in (root / layout.archive, *(root / name / layout.archive for name in layout.folders)):
            if archive.is_file():
                return _unpacked(layout, archive, cache)
    return folder


def _find_folder(layout: Layout, root: Path) -> Path | None:
    nested = [root / outer / inner for outer in layout.folders for inner in layout.folders if outer != inner]
    for folder in (root, *(root / name for name in layout.folders), *nested):
        if any((folder / mark).exists() for mark in layout.marks):
            return folder
    return None


def _unpacked(layout: Layout, archive: Path, cache: Path) -> Path:
    return extract_zip(archive, parts=(*layout.marks, _ANNOTATION), cache=cache)


def read_folder(layout: Layout, folder: Path, *, name: str | None = None) -> Split:
    """Read the three parts of `folder`, each sorted by file name, without checking counts."""
    missing = [part for part in PARTS.values() if not (folder / part).is_dir()]
    if missing:
        raise InputError(f"{folder}: {layout.title} without its folder {' and '.join(missing)}")
    parts = {part: read_part(layout, folder / subfolder) for part, subfolder in PARTS.items()}
    split = Split(name or layout.name, parts["train"], parts["query"], parts["gallery"])
    check_matches(split, folder)
    return split


def read_part(layout: Layout, folder: Path) -> tuple[ImageRecord, ...]:
    """The images of one folder, sorted by file name; `InputError` for none and for a name that does not parse."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_image(entry.name) and entry.is_file())
    if not names:
        raise InputError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    records, unread = [], []
    for name in names:
        match = layout.pattern.fullmatch(name)
        if match is None or int(match["camera"]) < 1:
            unread.append(name)
        else:
            records.append(ImageRecord(str(folder / name), int(match["identity"]), int(match["camera"])))
    if unread:
        raise InputError(
            f"{folder / unread[0]}: not a file name of {layout.title}, such as {layout.example} "
            f"({len(unread):,} of {len(names):,} images in {folder.name} are named otherwise)"
        )
    return tuple(records)


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def check_matches(split: Split, folder: Path) -> None:
    """Raise `InputError` where no query of `split`, read from `folder`, has a match from another camera."""
    cameras = {image.camera for image in (*split.query, *split.gallery) if image.identity != JUNK}
    if len(cameras) == 1:
        raise InputError(
            f"{folder}: all query and gallery images come from camera {min(cameras)}; a match must come from another "
            "camera than its query, so nothing is left to find"
        )
    seen = {(image.identity, image.camera) for image in split.gallery if image.identity > DISTRACTOR}
    cameras_of: dict[int, set[int]] = {}
    for identity, camera in seen:
        cameras_of.setdefault(identity, set()).add(camera)
    if not any(cameras_of.get(image.identity, set()) - {image.camera} for image in split.query):
        known = sum(image.identity in cameras_of for image in split.query)
        raise InputError(
            f"{folder}: none of the {len(split.query):,} queries has a true match, so nothing is left to find: "
            f"{known:,} have their identity in the gallery by their own camera only, the others not at all"
        )


def count_part(images: Sequence[ImageRecord]) -> PartCounts:
    """Count one part; junk and distractors are no persons, but their images and cameras count."""
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
    """Raise `InputError`, in one line with both numbers each, where a part differs from `expected`.

    folder: the dataset's, where it is not the one above that of the first image.
    """
    differences = []
    for part, wanted in expected.items():
        found = count_part(getattr(split, part))
        for quantity in PartCounts.__dataclass_fields__:
            have, want = getattr(found, quantity), getattr(wanted, quantity)
            if have != want:
                differences.append(f"{part} has {have:,} {quantity.replace('_', ' ')}, not {want:,}")
    if differences:
        folder = folder or Path(split.train[0].path).parent.parent
        raise InputError(f"{folder} differs from {source}: {'; '.join(differences)}; {advice}")


def banner(split: Split) -> str:
    """The table `subset | # ids | # images | # cameras`; the gallery's line tells junk and distractors apart.

    Where the training images come from several datasets, a line each tells what they give.
    """
    lines = [f"{split.name}", "subset  |  # ids | # images | # cameras"]
    for part in PARTS:
        counts = count_part(getattr(split, part))
        line = _row(part, counts)
        if part == "gallery":
            line += f"   ({counts.junk:,} junk and {counts.distractors:,} distractor images among them)"
        lines.append(line)
        if part == "train" and len(split.sources) > 1:
            for name, images in train_by_source(split).items():
                lines.append(f"{_row('', count_part(images))}   ({name})")
    return "\n".join(lines)


def _row(name: str, counts: PartCounts) -> str:
    return f"{name:<7} | {counts.identities:>6,} | {counts.images:>8,} | {counts.cameras:>9}"


def train_by_source(split: Split) -> dict[str, list[ImageRecord]]:
    """The training images of each of `split.sources`, told apart by their identities."""
    starts = sorted(split.sources, key=lambda source: source[1])
    images: dict[str, list[ImageRecord]] = {name: [] for name, _ in split.sources}
    for image in split.train:
        images[next(name for name, first in reversed(starts) if image.identity >= first)].append(image)
    return images
