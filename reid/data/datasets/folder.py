"""Images of one's own: any tree of folders, with one pattern for where identity and camera stand in a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.data.datasets.layout import check_matches, is_image
from reid.data.datasets.pattern import compile_pattern
from reid.data.datasets.splitting import choose_queries, choose_test_identities
from reid.errors import InputError
from reid.records import ImageRecord, Split

PART_FOLDERS = {
    "train": ("train", "bounding_box_train"),
    "query": ("query",),
    "gallery": ("gallery", "bounding_box_test"),
}
_SHOWN = 3


@dataclass(frozen=True)
class _Image:
    """A path below the root, and the texts that stand for identity and camera in it; the camera is "" if unknown."""

    path: str
    identity: str
    camera: str


def read_tree(root: Path, *, strict: bool = True, cache: Path, pattern: str, test: float = 0.5, seed: int = 0) -> Split:
    """Read all images in and below `root`, with identity and camera by `pattern`; see `reid.data.datasets.pattern`.

    Where `root` has folders `train`, `query` and `gallery` (or Market-1501's), these are the parts and the pattern is
    matched with paths below each. Otherwise a share `test` of the persons who can be asked for is drawn by `seed` and
    tested on; of these, one image of each camera asks, the others are the gallery (`reid.data.datasets.splitting`).

    Identities and cameras may be any texts and are numbered from 1, numbers first and in their order (`01` is `1`),
    then the others as sorted; none is junk or a distractor. Without `{camera}` in the pattern cameras are unknown:
    queries count as camera 1 and the gallery as camera 2, so that each image of the person is a match.
    strict: every image must fit the pattern; otherwise those that don't are passed over. cache: unused. Raises
    `InputError`, for a pattern that is wrong before anything is read.
    """
    del cache
    expression = compile_pattern(pattern)
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images; say where with DATASETS.FOLDER_ROOT or DATASETS.ROOT")
    parts = _part_folders(root)
    if parts:
        images = {part: _read(root, folder, expression, pattern, strict) for part, folder in parts.items()}
        shared = {image.identity for image in images["train"]} & {image.identity for image in images["query"]}
        if shared:
            raise InputError(
                f"{root}: the identity {_shown(sorted(shared, key=_order))} is in {parts['train']} and in "
                f"{parts['query']}; they must be disjoint"
            )
    else:
        images = _drawn(root, _read(root, "", expression, pattern, strict), test, seed)
    split = _numbered(root, images)
    check_matches(split, root)
    return split


def _part_folders(root: Path) -> dict[str, str]:
    """Part -> its folder in `root`; empty where the tree has no parts."""
    found = {
        part: next(name for name in names if (root / name).is_dir())
        for part, names in PART_FOLDERS.items()
        if any((root / name).is_dir() for name in names)
    }
    missing = [" or ".join(names) for part, names in PART_FOLDERS.items() if part not in found]
    if found and missing:
        raise InputError(
            f"{root}: has {' and '.join(found.values())}, so it must have {' and '.join(missing)} too; "
            "or give other names to folders that are no parts"
        )
    return found


def _read(root: Path, part: str, expression: re.Pattern[str], pattern: str, strict: bool) -> list[_Image]:
    images, unfit = [], []
    for path in walk_images(root / part):
        match = expression.fullmatch(path.rpartition(".")[0])
        if match is None or not _is_text(path):
            unfit.append(path)
            continue
        groups = match.groupdict(default="")
        images.append(_Image(str(Path(part, path)), _key(groups["identity"]), _key(groups.get("camera", ""))))
    if unfit and (strict or not images):
        remedy = "" if not images else "; DATASETS.STRICT False passes over them"
        raise InputError(
            f"{root / part}: {len(unfit):,} of {len(unfit) + len(images):,} images do not fit DATASETS.PATTERN "
            f"{pattern!r}: {_shown(unfit)}{remedy}"
        )
    if not images:
        raise InputError(f"{root / part}: holds no image, and none of its folders does")
    return images


def walk_images(folder: Path) -> Iterator[str]:
    """Paths of the images below `folder`, sorted folder by folder; links are followed, no folder is entered twice."""

    def fail(error: OSError) -> None:
        raise error

    entered = set[str]()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        for name in sorted(filter(is_image, files)):
            yield Path(place, name).relative_to(folder).as_posix()


def _drawn(root: Path, images: list[_Image], test: float, seed: int) -> dict[str, list[_Image]]:
    paths: dict[str, dict[str, list[str]]] = {}
    for image in images:
        paths.setdefault(image.identity, {}).setdefault(image.camera, []).append(image.path)
    tested = choose_test_identities(paths, test, seed)
    if not tested:
        known = any(image.camera for image in images)
        wanted = "images of two cameras" if known else "two images"
        advice = "; without {camera} in the pattern every other image of a person is a match" if known else ""
        raise InputError(
            f"{root}: to test, one person must have {wanted} and another be left for training, and here are "
            f"{len(paths):,} persons{advice}"
        )
    queries = set[str]().union(*(choose_queries(paths[identity], seed) for identity in tested))
    chosen = set(tested)
    return {
        "train": [image for image in images if image.identity not in chosen],
        "query": [image for image in images if image.path in queries],
        "gallery": [image for image in images if image.identity in chosen and image.path not in queries],
    }


def _numbered(root: Path, images: dict[str, list[_Image]]) -> Split:
    everything = [image for part in images.values() for image in part]
    identities, cameras = (
        {text: number for number, text in enumerate(sorted(texts, key=_order), start=1)}
        for texts in ({image.identity for image in everything}, {image.camera for image in everything})
    )
    if "" in cameras:
        cameras = {}
    parts = {
        part: tuple(
            ImageRecord(
                str(root / image.path),
                identities[image.identity],
                cameras.get(image.camera, 2 if part == "gallery" else 1),
            )
            for image in of_part
        )
        for part, of_part in images.items()
    }
    return Split(f"folder:{root.resolve().name}", parts["train"], parts["query"], parts["gallery"])


def _key(text: str) -> str:
    return (text.lstrip("0") or "0") if re.fullmatch("[0-9]+", text) else text


def _order(text: str) -> tuple[bool, int, str]:
    """Numbers first, in their order."""
    number = re.fullmatch("[0-9]+", text) is not None
    return (not number, int(text) if number else 0, text)


def _is_text(path: str) -> bool:
    """Whether a name is in UTF-8; another could be neither shown nor stored."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(texts: Sequence[str]) -> str:
    first = ", ".join(text if text.isprintable() else ascii(text) for text in texts[:_SHOWN])
    return first + (", ..." if len(texts) > _SHOWN else "")
