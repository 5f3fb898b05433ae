"""Thumbnails of image files, each embedded once in a page and limited in their total size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reid.errors import InputError
from reid.io.images import MAX_BYTES as MAX_FILE_BYTES
from reid.io.images import convert_to_rgb, open_image
from reid.io.reading import is_machine_error, read_file
from reid.progress import track
from reid.report.pages import Picture, picture

FRAME = (56, 112)  # Width and height in pixels of an image on the page; images of another aspect ratio are centered.
MAX_SIDE = 112  # Pixels. About twice the size on the page, for high-density screens.
MAX_BYTES = 10_000_000  # Of all images on a page.


@dataclass(frozen=True)
class PageImages:
    """The images of a page, referenced by id.

    Attributes:
        ids: Id of each image file that is on the page.
        pictures: Images by id.
        unreadable: Number of files that could not be read.
        omitted: Number of files that exceeded the size limit of the page.
    """

    ids: dict[str, str]
    pictures: dict[str, Picture]
    unreadable: int
    omitted: int


def page_images(files: Sequence[str]) -> PageImages:
    """Make thumbnails of image files up to `MAX_BYTES`.

    Args:
        files: Paths, which may repeat. The first ones have priority.

    Returns:
        The thumbnails, each file once.
    """
    files = list(dict.fromkeys(files))
    readable = {path: small for path, small in thumbnails(files).items() if small}
    ids: dict[str, str] = {}
    remaining = MAX_BYTES
    for path in files:
        if path in readable and len(readable[path].src) <= remaining:
            remaining -= len(readable[path].src)
            ids[path] = f"p{len(ids)}"
    pictures = {ids[path]: readable[path] for path in ids}
    return PageImages(ids, pictures, len(files) - len(readable), len(readable) - len(ids))


def thumbnails(paths: Iterable[str]) -> dict[str, Picture | None]:
    """Make a small JPEG of each image file.

    Args:
        paths: Paths, which may repeat.

    Returns:
        The thumbnail of each path, or None for a file that is missing, corrupt or too large to decode.

    Raises:
        OSError: If the machine cannot read a file now, for lack of file descriptors for example.
    """
    distinct = sorted(set(paths))
    return {path: _thumbnail(path) for path in track(distinct, "thumbnails", unit="images")}


def _thumbnail(path: str) -> Picture | None:
    try:
        content = read_file(path, max_bytes=MAX_FILE_BYTES)
    except (InputError, FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        with open_image(path, content) as image:
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # Decodes a large JPEG at a fraction of its size.
            return picture(convert_to_rgb(image), alt="", max_side=MAX_SIDE)
    # Pillow's decoders raise many kinds of errors on corrupt files, which must not prevent writing the page.
    except Exception as error:
        if is_machine_error(error):
            raise
        return None
