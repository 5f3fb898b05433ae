"""Custom datasets: any tree of folders, with a pattern for the identity and camera in a path."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
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
_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class _Image:
    """A path below the root, and the strings for identity and camera in it; the camera is "" if unknown."""

    path: str
    identity: str
    camera: str


def read_tree(root: Path, *, strict: bool = True, cache: Path, pattern: str, test: float = 0.5, seed: int = 0) -> Split:
    """Read all images in and below a folder.

    If `root` has folders `train`, `query` and `gallery` (or those of Market-1501), these are the parts, and the pattern
    is matched with the paths below each. Otherwise test identities and their queries are chosen by `seed` (see
    `reid.data.datasets.splitting`).

    Identities and cameras may be any strings and are numbered from 1, numbers first and in numerical order (`01` is
    `1`), then the others sorted. There is no junk and no distractor. Without `{camera}` in the pattern, cameras are
    unknown: queries are assigned camera 1 and the gallery camera 2, so that each image of an identity is a match.

    Args:
        root: Folder of the images.
        strict: Whether every image must match the pattern; otherwise those that do not are ignored.
        cache: Unused; all readers take it.
        pattern: Where identity and camera are in a path; see `reid.data.datasets.pattern`.
        test: Fraction of the eligible identities that are tested on, without part folders.
        seed: Seed of the split, without part folders.

    Returns:
        The checked split, named `folder:NAME`.

    Raises:
        InputError: If the pattern is invalid (checked before anything is read), an image does not match it, a part
            is missing or empty, or no test identity can be chosen.
    """
    del cache
    expression = compile_pattern(pattern)
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images; set DATASETS.FOLDER_ROOT or DATASETS.ROOT")
    parts = _part_folders(root)
    if parts:
        images = {part: _read(root, folder, expression, pattern, strict) for part, folder in parts.items()}
        shared = {image.identity for image in images["train"]} & {image.identity for image in images["query"]}
        if shared:
            raise InputError(
                f"{root}: the identity {_examples(sorted(shared, key=_order))} is in both {parts['train']} and "
                f"{parts['query']}; they must be disjoint"
            )
    else:
        images = _random_split(root, _read(root, "", expression, pattern, strict), test, seed)
    split = _to_split(root, images)
    check_matches(split, root)
    return split


def _part_folders(root: Path) -> dict[str, str]:
    """Map each part to its folder in `root`; empty if the tree has no part folders."""
    found = {
        part: next(name for name in names if (root / name).is_dir())
        for part, names in PART_FOLDERS.items()
        if any((root / name).is_dir() for name in names)
    }
    missing = [" or ".join(names) for part, names in PART_FOLDERS.items() if part not in found]
    if found and missing:
        raise InputError(
            f"{root}: contains {' and '.join(found.values())}, so it must contain {' and '.join(missing)}, too; "
            "rename folders that are not parts of the dataset"
        )
    return found


def _read(root: Path, part: str, expression: re.Pattern[str], pattern: str, strict: bool) -> list[_Image]:
    images, unmatched = [], []
    for path in walk_images(root / part):
        match = expression.fullmatch(path.rpartition(".")[0])
        if match is None or not _is_utf8(path):
            unmatched.append(path)
            continue
        groups = match.groupdict(default="")
        images.append(_Image(str(Path(part, path)), _key(groups["identity"]), _key(groups.get("camera", ""))))
    if unmatched and (strict or not images):
        remedy = "" if not images else "; DATASETS.STRICT False ignores them"
        raise InputError(
            f"{root / part}: {len(unmatched):,} of {len(unmatched) + len(images):,} images do not match "
            f"DATASETS.PATTERN {pattern!r}: {_examples(unmatched)}{remedy}"
        )
    if not images:
        raise InputError(f"{root / part}: neither the folder nor its subfolders contain an image")
    return images


def walk_images(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Walk over the images below a folder. Links are followed, but no folder is entered twice.

    Args:
        folder: Root of the tree.
        on_error: Called with the error of a folder that cannot be read, and of a link of which the target cannot be
            determined; both are skipped if it returns. None raises the error.

    Yields:
        Paths relative to `folder`, sorted within each folder.

    Raises:
        OSError: If a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    on_error = on_error or fail
    entered = set[str]()
    waiting = [str(folder)]
    while waiting:
        parent = waiting.pop()
        real = os.path.realpath(parent)
        if real in entered:
            continue
        entered.add(real)
        folders, files = _list_folder(parent, on_error)
        for name in files:
            yield Path(parent, name).relative_to(folder).as_posix()
        waiting += [os.path.join(parent, name) for name in reversed(folders)]


def _list_folder(parent: str, on_error: Callable[[OSError], None]) -> tuple[list[str], list[str]]:
    """List the names of folders and images, sorted."""
    folders, files = [], []
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                try:
                    is_folder = entry.is_dir()
                except OSError as error:  # a link; one whose target is missing raises no error
                    is_folder = False
                    if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                        on_error(error)
                if is_folder and not entry.name.startswith((".", "__MACOSX")):
                    folders.append(entry.name)
                elif not is_folder and is_image(entry.name):
                    files.append(entry.name)
    except OSError as error:
        on_error(error)
    return sorted(folders), sorted(files)


def _random_split(root: Path, images: list[_Image], test: float, seed: int) -> dict[str, list[_Image]]:
    paths: dict[str, dict[str, list[str]]] = {}
    for image in images:
        paths.setdefault(image.identity, {}).setdefault(image.camera, []).append(image.path)
    chosen = choose_test_identities(paths, test, seed)
    if not chosen:
        known = any(image.camera for image in images)
        required = "images from two cameras" if known else "two images"
        advice = "; without {camera} in the pattern every other image of an identity is a match" if known else ""
        raise InputError(
            f"{root}: testing requires an identity with {required} and another identity for training; found "
            f"{len(paths):,} identities{advice}"
        )
    queries = set[str]().union(*(choose_queries(paths[identity], seed) for identity in chosen))
    test_identities = set(chosen)
    return {
        "train": [image for image in images if image.identity not in test_identities],
        "query": [image for image in images if image.path in queries],
        "gallery": [image for image in images if image.identity in test_identities and image.path not in queries],
    }


def _to_split(root: Path, images: dict[str, list[_Image]]) -> Split:
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
            for image in records
        )
        for part, records in images.items()
    }
    return Split(f"folder:{root.resolve().name}", parts["train"], parts["query"], parts["gallery"])


def _key(text: str) -> str:
    return (text.lstrip("0") or "0") if re.fullmatch("[0-9]+", text) else text


def _order(text: str) -> tuple[bool, int, str]:
    """Sort key: numbers first, in numerical order."""
    number = re.fullmatch("[0-9]+", text) is not None
    return (not number, int(text) if number else 0, text)


def _is_utf8(path: str) -> bool:
    """Check whether a path is valid UTF-8; others can be neither displayed nor stored."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _examples(texts: Sequence[str]) -> str:
    first = ", ".join(text if text.isprintable() else ascii(text) for text in texts[:_MAX_EXAMPLES])
    return first + (", ..." if len(texts) > _MAX_EXAMPLES else "")
