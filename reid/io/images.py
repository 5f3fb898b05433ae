"""Opening of image files: the formats and sizes that are accepted, and bounds on the time to decode them.

The time is in proportion to the size of the file and the number of pixels. Pillow alone does not ensure this: each
empty scan of a JPEG passes over the whole image, compressed metadata of a PNG expand a thousandfold, parts of EXIF data
are joined in quadratic time, and run lengths of a BMP are decoded pixel by pixel in Python.
"""

from __future__ import annotations

import io
import re

import numpy as np

# Imported now: Pillow does not report a decoder that it cannot import later, for lack of file descriptors for example.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from reid.errors import InputError

MAX_PIXELS = 50_000_000
MAX_BYTES = 2**29  # 50 megapixels uncompressed with 16 bits per channel are 400 MB
# Pillow reads dozens of other formats, whatever the file name says, and runs another program for one of them.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

MAX_SCANNED_PIXELS = 1_000_000_000
"""Pixels of a JPEG times its scans; a small image counts as 5 megapixels, since each scan costs a constant too."""
MAX_PARTS = 100_000
"""Chunks of a PNG, of which a huge one has 50,000, or segments of a JPEG before the first scan."""
MAX_RUN_LENGTH_PIXELS = 5_000_000
"""Pixels of a BMP compressed with run lengths."""

_JPEG, _PNG, _BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
_OTHER_CONTENT = {
    **dict.fromkeys((b"II*\0", b"MM\0*"), "TIFF"),
    **{b"GIF8": "GIF", b"\0\0\0\x0cjP": "JPEG 2000", b"%PDF": "PDF", b"8BPS": "Photoshop"},
}
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_SEQUENTIAL_FRAMES, _START_OF_SCAN = (0xC0, 0xC1), 0xDA
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xDA))
# Application data and comments, except JFIF (APP0) and Adobe (APP14), which determine the color space.
_JPEG_METADATA = (*range(0xE1, 0xEE), 0xEF, 0xFE)
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


class CorruptImage(InputError):
    """An existing image that cannot be read: corrupt, truncated or too large."""


def open_image(name: str, content: bytes) -> Image.Image:
    """Open an image, without its metadata, that can be decoded in a time in proportion to its size.

    Args:
        name: Name of the image in error messages.
        content: Content of a file in one of `FORMATS`.

    Returns:
        The image, not decoded.

    Raises:
        CorruptImage: If the image is larger than 50 megapixels or takes too long to decode.
        Exception: Pillow's errors, of many types, for other content.
    """
    scans = 1
    if content.startswith(_JPEG):
        content, scans = _strip_jpeg(name, content)
    elif content.startswith(_PNG):
        content = _strip_png(name, content)
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    check_size(image, name)
    pixels = image.size[0] * image.size[1]
    if scans > 1 and scans * max(pixels, 5_000_000) > MAX_SCANNED_PIXELS:
        raise CorruptImage(
            f"{name}: a JPEG of {pixels:,} pixels in {scans:,} scans takes too long to decode; store it with fewer"
        )
    run_lengths = content.startswith(_BMP) and image.info.get("compression") in (1, 2)
    if run_lengths and pixels > MAX_RUN_LENGTH_PIXELS:
        raise CorruptImage(
            f"{name}: a compressed BMP of {pixels:,} pixels takes too long to decode; store it uncompressed"
        )
    return image


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as it is stored: the EXIF rotation is not applied and transparency is dropped.

    The upper 8 bits of 16 bits per channel are used.

    Args:
        image: An image, which is decoded now.

    Returns:
        The image in RGB.

    Raises:
        Exception: Pillow's errors, of many types, if its pixels cannot be read.
    """
    if image.mode.startswith("I"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def name_content(content: bytes) -> str:
    """Name what a file holds that is often saved under the name of an image.

    Args:
        content: Content of a file in none of `FORMATS`.

    Returns:
        The end of a message, such as `: a TIFF file, convert it to PNG`; empty if the content is unknown.
    """
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not content:
        return ": the file is empty"
    if any(mark in start for mark in (b"<!doctype html", b"<html")):
        return ": a web page, probably of a failed download; download the image again"
    if start.startswith(b"version https://git-lfs"):
        return ": a Git LFS pointer; run git lfs pull"
    name = next((name for mark, name in _OTHER_CONTENT.items() if content.startswith(mark)), "")
    if content[4:8] == b"ftyp":
        name = "HEIC or AVIF"
    return f": a {name} file, convert it to PNG" if name else ""


def check_size(image: Image.Image, name: str) -> None:
    """Check that an image has at most 50 megapixels.

    Args:
        image: An image that need not be decoded yet.
        name: Name of the image in error messages.

    Raises:
        CorruptImage: If it is larger.
    """
    columns, rows = image.size
    if columns * rows > MAX_PIXELS:
        raise CorruptImage(
            f"{name}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}; store a smaller image or remove it"
        )


def _strip_jpeg(name: str, content: bytes) -> tuple[bytes, int]:
    """Return the file without metadata, and the number of scans or an upper bound of it."""
    kept, position, components = [content[:2]], 2, 256
    for _ in range(MAX_PARTS):
        # Bytes between the segments are skipped, as libjpeg does.
        found = _MARKER.search(content, position)
        if found is None:
            return b"".join(kept), 1
        start, marker = found.start(), content[found.start() + 1]
        if marker == _START_OF_SCAN:
            # A scan of all components is the only one, except in a progressive image; then libjpeg reads no further.
            only = int.from_bytes(content[start + 4 : start + 5], "big") >= components
            # Compressed data contain no markers, so further ones are scans, or lie in data after the image.
            scans = 1 if only else content.count(bytes((0xFF, _START_OF_SCAN)), start)
            return b"".join([*kept, content[start:]]), scans
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(content[start + 2 : start + 4], "big"))
        position = start + 2 + length
        if marker not in _JPEG_METADATA:
            kept.append(content[start:position])
        if marker in _SEQUENTIAL_FRAMES and start + 9 < len(content):
            components = content[start + 9]
    raise CorruptImage(f"{name}: a JPEG of more than {MAX_PARTS:,} segments; remove its metadata")


def _strip_png(name: str, content: bytes) -> bytes:
    """Return the file without metadata; also without the further frames of an animation, which are never shown."""
    kept, position = [content[:8]], 8
    for _ in range(MAX_PARTS):
        start, position = position, position + 12 + int.from_bytes(content[position : position + 4], "big")
        kind = content[start + 4 : start + 8]
        if kind in _PNG_PIXELS:
            kept.append(content[start:position])
        if kind == b"IEND" or position >= len(content):
            return b"".join(kept)
    raise CorruptImage(f"{name}: a PNG of more than {MAX_PARTS:,} chunks; remove its metadata")
