"""Decoding of image files: size limits, checks, conversion to RGB, resizing."""

from __future__ import annotations

import io
import os
import stat

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from reid.errors import InputError

MAX_PIXELS = 50_000_000
# Pillow reads dozens of other formats, whatever the file name says, and runs another program for one of them.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
FILTERS = ("bilinear", "bicubic")
"""Filters to resize with, both with antialiasing."""


class CorruptImage(InputError):
    """An existing image that cannot be read: corrupt, truncated or too large."""


def decode_image(path: str, size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """Decode and resize one image.

    Args:
        path: Image file in one of `FORMATS`, whatever its suffix.
        size: Height and width in pixels.
        resize: One of `FILTERS`.

    Returns:
        (3, height, width) uint8 RGB.

    Raises:
        CorruptImage: If the image is unreadable, truncated or larger than 50 megapixels.
        InputError: If there is no such file.
    """
    return resize_pixels(np.array(read_image(path)), size, resize)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """Resize one image.

    Args:
        pixels: (rows, columns, 3) uint8.
        size: Height and width in pixels.
        resize: One of `FILTERS`.

    Returns:
        (3, height, width) uint8; a view if `pixels` has this size already.
    """
    if pixels.shape[:2] == size:
        return pixels.transpose(2, 0, 1)
    # The same as Pillow's resizing to within one gray level, in a third of the time.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    return functional.interpolate(image, size, mode=resize, antialias=True)[0].numpy()


def read_image(path: str, content: bytes | None = None) -> Image.Image:
    """Read one image in its own size and convert it as `to_rgb` does.

    Args:
        path: Image file in one of `FORMATS`, whatever its suffix.
        content: Content of a file in memory, which is read instead; error messages then name it by `path`.

    Returns:
        The image in RGB.

    Raises:
        CorruptImage: If the image is unreadable, truncated or larger than 50 megapixels.
        InputError: If there is no such file.
    """
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):
            raise CorruptImage(f"{path}: not a file")  # reading a pipe would block
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            return to_rgb(image, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
    except CorruptImage:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptImage(f"{path}: {error}") from None
    except UnidentifiedImageError as error:
        if content is None:
            raise _unreadable(path, error) from None
        raise CorruptImage(f"{path}: not a JPEG, PNG, BMP or WebP image, or a corrupt one") from None
    except Exception as error:
        raise _unreadable(path, error) from None


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an image to RGB as it is stored: the EXIF rotation is not applied and transparency is dropped.

    The upper 8 bits of 16 bits per channel are used.

    Args:
        image: An image that may not be decoded yet.
        name: Name of the image in error messages.

    Returns:
        The image in RGB.

    Raises:
        CorruptImage: If the image is larger than 50 megapixels (it is not decoded then), its pixels cannot be read, or
            they are floating-point numbers without a known range.
    """
    columns, rows = image.size
    if columns * rows > MAX_PIXELS:
        raise CorruptImage(
            f"{name}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}; store a smaller image or remove it"
        )
    if image.mode == "F":
        raise CorruptImage(
            f"{name}: floating-point pixels have no known range; store the image with 8 bits per channel"
        )
    try:
        if image.mode.startswith("I"):  # Pillow would clip at 255
            return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")
    except Exception as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> Exception:
    # Pillow's decoders raise errors of many types for corrupt files; a missing permission or memory is not one of them.
    if isinstance(error, (InputError, PermissionError, MemoryError)):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    return CorruptImage(f"{name}: unreadable or truncated image ({reason}); replace or remove it")
