"""Finding image files in folders: the suffixes that are read, everywhere the same ones, and those that are skipped."""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Suffixes, in any case, of the formats in `reid.io.images.FORMATS`."""
# Images that are not read, unlike text or Thumbs.db, are missed.
_OTHER_IMAGES = (
    *(".tif", ".tiff", ".gif", ".jfif", ".jpe", ".jp2", ".heic", ".heif", ".avif", ".jxl"),
    *(".ppm", ".pgm", ".pnm", ".tga", ".dng", ".raw", ".svg"),
)


def is_image(name: str) -> bool:
    """Return whether a file is read as an image.

    Args:
        name: File name, without folders.

    Returns:
        Whether it has a suffix of `IMAGE_SUFFIXES` and is not hidden.
    """
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def list_images(folder: Path) -> list[str]:
    """List the images directly in a folder; images in other formats are counted in a warning.

    Args:
        folder: Folder of the images; subfolders are not read.

    Returns:
        File names, sorted.

    Raises:
        OSError: If the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_any_image(entry.name) and entry.is_file())
    warn_of_skipped(folder, [name for name in names if not is_image(name)])
    return [name for name in names if is_image(name)]


def list_folders(folder: Path) -> list[str]:
    """List the folders directly in a folder that `walk_images` enters.

    Args:
        folder: Folder to list.

    Returns:
        Names, sorted; hidden folders are left out.

    Raises:
        OSError: If the folder cannot be read.
    """
    return _list_folder(str(folder), _fail)[0]


def walk_images(
    folder: Path, on_error: Callable[[OSError], None] | None = None, skipped: list[str] | None = None
) -> Iterator[str]:
    """Walk over the images below a folder. Links are followed, but no folder is entered twice.

    Args:
        folder: Root of the tree.
        on_error: Called with the error of a folder that cannot be read, and of a link of which the target cannot be
            determined; both are skipped if it returns. None raises the error.
        skipped: List to which the names of images in formats that are not read are appended.

    Yields:
        Paths relative to `folder`, sorted within each folder.

    Raises:
        OSError: If a folder cannot be read.
    """
    on_error = on_error or _fail
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
            if is_image(name):
                yield Path(parent, name).relative_to(folder).as_posix()
            elif skipped is not None:
                skipped.append(name)
        waiting += [os.path.join(parent, name) for name in reversed(folders)]


def warn_of_skipped(folder: Path, names: Sequence[str]) -> None:
    """Warn of images in formats that are not read.

    Args:
        folder: Folder in or below which they are.
        names: Their names; without any, there is no warning.
    """
    if names:
        counts = Counter(Path(name).suffix.lower() for name in names)
        listed = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
        logger.warning("%s: skipped %s; images must end in %s", folder, listed, ", ".join(IMAGE_SUFFIXES))


def _list_folder(parent: str, on_error: Callable[[OSError], None]) -> tuple[list[str], list[str]]:
    """List the names of folders and images of any format, sorted."""
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
                elif not is_folder and _is_any_image(entry.name):
                    files.append(entry.name)
    except OSError as error:
        on_error(error)
    return sorted(folders), sorted(files)


def _fail(error: OSError) -> None:
    raise error


def _is_any_image(name: str) -> bool:
    return is_image(name) or (name.lower().endswith(_OTHER_IMAGES) and not name.startswith("."))
