"""Decoding of image files: checks, conversion to RGB, resizing."""

from __future__ import annotations

import errno
import os

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from reid.errors import InputError
from reid.io.images import MAX_BYTES, CorruptImage, check_size, convert_to_rgb, name_content, open_image
from reid.io.reading import is_machine_error, read_file

FILTERS = ("bilinear", "bicubic")
"""Filters to resize with, both with antialiasing."""

_UNIDENTIFIED = "not a JPEG, PNG, BMP or WebP image, or a corrupt one"
_DECODER_BYTES, _DECODER_BYTES_PER_PIXEL = 2**24, 8


def decode_image(path: str, size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """Decode and resize one image.

    Args:
        path: Image file in one of `FORMATS`, whatever its suffix.
        size: Height and width in pixels.
        resize: One of `FILTERS`.

    Returns:
        (3, height, width) uint8 RGB.

    Raises:
        CorruptImage: If the image is unreadable, truncated, larger than 50 megapixels or takes too long to decode.
        InputError: If there is no such file.
        OSError: If the machine cannot read or decode it now; the image may be sound.
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
        CorruptImage: If the image is unreadable, truncated, larger than 50 megapixels or takes too long to decode.
        InputError: If there is no such file.
        OSError: If the machine cannot read it now, which says nothing about the image: see `reid.io.reading`.
    """
    try:
        data = read_file(path, max_bytes=MAX_BYTES) if content is None else content
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
    except InputError as error:  # a pipe, or too large
        raise CorruptImage(str(error)) from None
    try:
        with open_image(path, data) as image:
            return to_rgb(image, path)
    except CorruptImage:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptImage(f"{path}: {error}") from None
    except UnidentifiedImageError as error:
        if content is not None and _has_memory():
            raise CorruptImage(f"{path}: {_UNIDENTIFIED}{name_content(data)}") from None
        raise _unreadable(path, error, reason=f"{_UNIDENTIFIED}{name_content(data)}") from None
    except Exception as error:
        raise _unreadable(path, error) from None


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an image to RGB as `reid.io.images.convert_to_rgb` does.

    Args:
        image: An image that may not be decoded yet.
        name: Name of the image in error messages.

    Returns:
        The image in RGB.

    Raises:
        CorruptImage: If the image is larger than 50 megapixels (it is not decoded then), its pixels cannot be read, or
            they are floating-point numbers without a known range.
    """
    check_size(image, name)
    if image.mode == "F":
        raise CorruptImage(
            f"{name}: floating-point pixels have no known range; store the image with 8 bits per channel"
        )
    try:
        return convert_to_rgb(image)
    except Exception as error:
        raise _unreadable(name, error, image.size[0] * image.size[1]) from None


def _unreadable(name: str, error: Exception, pixels: int = 0, reason: str = "") -> Exception:
    """What an error of a decoder, of many possible types, says: the bytes are corrupt, or the machine lacks memory."""
    if isinstance(error, CorruptImage):
        return error
    if is_machine_error(error) or not _has_memory(pixels):
        number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOMEM
        return OSError(number, os.strerror(number), name)
    reason = reason or " ".join(str(error).split()) or type(error).__name__
    return CorruptImage(f"{name}: unreadable or truncated image ({reason}); replace or remove it")


def _has_memory(pixels: int = 0) -> bool:
    """Whether there is memory to decode with: libjpeg and libwebp report a lack of it as corrupt bytes."""
    try:
        bytearray(_DECODER_BYTES + _DECODER_BYTES_PER_PIXEL * pixels)
    except MemoryError:
        return False
    return True
