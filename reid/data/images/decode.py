"""Image files as pixels: bounded, checked, in RGB, resized."""

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
# Pillow reads dozens more, whatever the name of the file says, and for one of them runs another program.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
FILTERS = ("bilinear", "bicubic")  # that an image of another size is resized by, with antialiasing


class CorruptImage(InputError):
    """An image that is there and cannot be read: broken, truncated or too large."""


def decode_image(path: str, size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """One image as (3, height, width) uint8 RGB; see `decode_images` for the resizing and the errors."""
    return resized(np.array(read_image(path)), size, resize)


def resized(pixels: np.ndarray, size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """(rows, columns, 3) uint8, as (3, height, width) uint8 by the filter `resize`; of that size already, a view."""
    if pixels.shape[:2] == size:
        return pixels.transpose(2, 0, 1)
    # Pillow's own way of resizing, to one gray level, in a third of its time.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    return functional.interpolate(image, size, mode=resize, antialias=True)[0].numpy()


def read_image(path: str, content: bytes | None = None) -> Image.Image:
    """One image in its own size, as `rgb` makes it. Raises `InputError` as `decode_images` does.

    content: of a file that is in memory; `path` is then but what errors call it.
    """
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):
            raise CorruptImage(f"{path}: not a file")  # a pipe would be waited for
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            return rgb(image, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; was the dataset moved or changed?") from None
    except CorruptImage:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptImage(f"{path}: {error}") from None
    except UnidentifiedImageError as error:
        if content is None:
            raise _unreadable(path, error) from None
        raise CorruptImage(f"{path}: no JPEG, PNG, BMP or WebP image, or a broken one") from None
    except Exception as error:
        raise _unreadable(path, error) from None


def rgb(image: Image.Image, name: str) -> Image.Image:
    """An image in RGB as it is stored: a rotation that EXIF asks for is not made, and transparency is left out.

    Of 16 bits a channel the upper 8 are taken. name: what errors call it. Raises `CorruptImage` for one that is larger
    than 50 megapixels, which are not decoded, whose pixels cannot be read, or whose numbers have no known range.
    """
    columns, rows = image.size
    if columns * rows > MAX_PIXELS:
        raise CorruptImage(
            f"{name}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}; store it smaller or take it out"
        )
    if image.mode == "F":
        raise CorruptImage(f"{name}: floating point pixels, which have no known range; store it with 8 bits a channel")
    try:
        if image.mode.startswith("I"):  # which Pillow would cut off at 255
            return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")
    except Exception as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> Exception:
    # Pillow tells broken files by whatever its decoders meet; a full disk or a missing right is not among them here.
    if isinstance(error, (InputError, PermissionError, MemoryError)):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    return CorruptImage(f"{name}: unreadable or truncated image ({reason}); replace it or take it out")
