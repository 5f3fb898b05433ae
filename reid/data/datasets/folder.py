"""Custom datasets: any tree of folders, with a pattern for the identity and camera in a path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.data.datasets.label_checks import separate_copies, warn_of_image_numbers
from reid.data.datasets.layout import check_matches
from reid.data.datasets.pattern import PathPattern, compile_pattern
from reid.data.datasets.splitting import choose_queries, choose_test_identities
from reid.errors import InputError
from reid.io.image_files import IMAGE_SUFFIXES, list_folders, walk_images, warn_of_skipped
from reid.records import DISTRACTOR, JUNK, ImageRecord, Split

PART_FOLDERS = {
    "train": ("train", "bounding_box_train"),
    "query": ("query",),
    "gallery": ("gallery", "bounding_box_test"),
}
_MAX_EXAMPLES = 3
# Junk and distractors of Market-1501, -1 and 0000, as `_key` returns them.
_JUNK, _DISTRACTOR = "-1", "0"


@dataclass(frozen=True)
class _Image:
    """A path below the root, and the strings for identity and camera in it; the camera is "" if unknown."""

    path: str
    identity: str
    camera: str


def read_tree(root: Path, *, strict: bool = True, cache: Path, pattern: str, test: float = 0.5, seed: int = 0) -> Split:
    """Read all images in and below a folder.

    If `root` has folders `train`, `query` and `gallery` (or those of Market-1501), in any case, these are the parts,
    and the pattern is matched with the paths below each. Otherwise test identities and their queries are chosen by
    `seed` (see `reid.data.datasets.splitting`).

    Identities and cameras may be any strings and are numbered from 1, numbers first and in numerical order (`01` is
    `1`), then the others sorted. In the gallery only, `-1` is junk and `0` (or `0000`) a distractor, as in Market-1501.
    Without `{camera}` in the pattern, cameras are unknown: queries are assigned camera 1 and the gallery camera 2, so
    that each image of an identity is a match, except the query's own file (see `label_checks.separate_copies`).

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
            is missing, empty or ambiguous, or no test identity can be chosen.
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
        if junk := [image.path for part in ("train", "query") for image in images[part] if image.identity == _JUNK]:
            raise InputError(f"{root / junk[0]}: identity -1 is junk, which only the gallery may contain")
    else:
        images = _random_split(root, _read(root, "", expression, pattern, strict), test, seed)
    split = _to_split(root, images)
    if split.cameras_known:
        warn_of_image_numbers(split)
    else:
        split = separate_copies(split)
    check_matches(split, root)
    return split


def _part_folders(root: Path, *, deeper: bool = True) -> dict[str, str]:
    """Map each part to its folder in `root` or, if `deeper`, in its only subfolder; empty if there are no parts."""
    folders = list_folders(root)
    found = {part: [name for name in folders if name.lower() in names] for part, names in PART_FOLDERS.items()}
    for part, names in found.items():
        if len({(root / name).resolve() for name in names}) > 1:
            raise InputError(
                f"{root}: contains {' and '.join(names)}, of which only one can be the {part}; rename or remove the "
                "other"
            )
    missing = {part: " or ".join(PART_FOLDERS[part]) for part, names in found.items() if not names}
    near = {part: difflib.get_close_matches(part, [name.lower() for name in folders], n=1) for part in missing}
    similar = {part: next(f for f in folders if f.lower() == names[0]) for part, names in near.items() if names}
    if not missing:
        return {part: names[0] for part, names in found.items()}
    if len(missing) < len(PART_FOLDERS) or len(set(similar.values())) > 1:
        present = " and ".join(name for names in found.values() for name in names) or " and ".join(similar.values())
        hint = "".join(f"; is {name} the {part}?" for part, name in similar.items())
        raise InputError(
            f"{root}: contains {present}, so it must contain {' and '.join(missing.values())}, too; rename folders "
            f"that are not parts of the dataset{hint}"
        )
    if not deeper or len(folders) != 1:
        return {}
    return {part: f"{folders[0]}/{name}" for part, name in _part_folders(root / folders[0], deeper=False).items()}


def _read(root: Path, part: str, expression: PathPattern, pattern: str, strict: bool) -> list[_Image]:
    images, unmatched, skipped = [], [], list[str]()
    for path in walk_images(root / part, skipped=skipped):
        fields = expression.fullmatch(path.rpartition(".")[0])
        if fields is None or not _is_utf8(path):
            unmatched.append(path)
            continue
        images.append(_Image(str(Path(part, path)), _key(fields["identity"]), _key(fields.get("camera", ""))))
    warn_of_skipped(root / part, skipped)
    if unmatched and (strict or not images):
        remedy = "" if not images else "; DATASETS.STRICT False ignores them"
        raise InputError(
            f"{root / part}: {len(unmatched):,} of {len(unmatched) + len(images):,} images do not match "
            f"DATASETS.PATTERN {pattern!r}: {_examples(unmatched)}{remedy}"
        )
    if not images:
        raise InputError(
            f"{root / part}: neither the folder nor its subfolders contain an image ({', '.join(IMAGE_SUFFIXES)})"
        )
    return images


def _random_split(root: Path, images: list[_Image], test: float, seed: int) -> dict[str, list[_Image]]:
    junk = [image for image in images if image.identity == _JUNK]
    if junk:  # with it, 0 is no person either, as in Market-1501
        junk = [image for image in images if image.identity in (_JUNK, _DISTRACTOR)]
        images = [image for image in images if image.identity not in (_JUNK, _DISTRACTOR)]
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
        "gallery": [image for image in images if image.identity in test_identities and image.path not in queries]
        + junk,
    }


def _to_split(root: Path, images: dict[str, list[_Image]]) -> Split:
    everything = [image for part in images.values() for image in part]
    identities, cameras = (
        {text: number for number, text in enumerate(sorted(texts, key=_order), start=1)}
        for texts in ({image.identity for image in everything}, {image.camera for image in everything})
    )
    persons = {image.identity for part in ("train", "query") for image in images[part]}
    # In the gallery only, identities are what they are in Market-1501.
    identities |= {text: number for text, number in ((_JUNK, JUNK), (_DISTRACTOR, DISTRACTOR)) if text not in persons}
    known = "" not in cameras
    parts = {
        part: tuple(
            ImageRecord(
                str(root / image.path),
                identities[image.identity],
                cameras[image.camera] if known else 2 if part == "gallery" else 1,
            )
            for image in records
        )
        for part, records in images.items()
    }
    return Split(f"folder:{root.resolve().name}", parts["train"], parts["query"], parts["gallery"], cameras_known=known)


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
