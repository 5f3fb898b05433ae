"""Images as a user holds them, files, Pillow images or arrays in one list, as the pixels that files give."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reid.data.images.decode import MAX_PIXELS, CorruptImage, decode_image, resized, rgb
from reid.data.images.normalization import normalize
from reid.data.images.pixels import EachDecoded, cores, read, to_device
from reid.data.loading.prefetch import prefetched
from reid.errors import InputError

Given = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

# Pillow reads an opened image when its pixels are wanted, and not twice at once.
_LOADING = threading.Lock()


@dataclass(frozen=True, eq=False)
class GivenImages:
    """`reid.data.images.pixels.EachDecoded` of paths, Pillow images, (H, W, 3) uint8 RGB arrays and (3, H, W) uint8 tensors.

    They may be mixed and of any sizes. What is wrong with one is a CorruptImage that says where in the list it stands.
    """

    images: Sequence[Given]
    size: tuple[int, int]
    resize: str = "bilinear"
    threads: int = field(default_factory=cores)

    def __len__(self) -> int:
        return len(self.images)

    def decode(self, number: int) -> np.ndarray:
        """(3, height, width) uint8; the same as `decode_image` of a file with these pixels."""
        image, name = self.images[number], f"image {number} of {len(self)}"
        if isinstance(image, str | os.PathLike):
            try:
                return decode_image(os.fspath(image), self.size, self.resize)
            except InputError as error:
                raise CorruptImage(f"{name}: {error}") from None
        if isinstance(image, Image.Image):
            with _LOADING:
                image = rgb(image, name)
            return resized(np.array(image), self.size, self.resize)
        if isinstance(image, Tensor):
            return resized(_checked_tensor(image, name), self.size, self.resize)
        if isinstance(image, np.ndarray):
            return resized(_checked_array(image, name), self.size, self.resize)
        raise CorruptImage(
            f"{name}: a {type(image).__name__}; give a path, a Pillow image, a (H, W, 3) uint8 RGB array or a "
            "(3, H, W) uint8 tensor"
        )


def _checked_array(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise CorruptImage(f"{name}: an array is (H, W, 3) uint8, RGB, not {image.dtype} {image.shape}")
    _check_area(image.shape[:2], name)
    return np.array(image, order="C")  # torch takes none that is read-only


def _checked_tensor(image: Tensor, name: str) -> np.ndarray:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise CorruptImage(
            f"{name}: a tensor in a list is (3, H, W) uint8, RGB, not {_kind(image)} {tuple(image.shape)}; stack those "
            "in [0, 1] to one of (N, 3, H, W)"
        )
    _check_area(tuple(image.shape[1:]), name)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def _check_area(sides: tuple[int, ...], name: str) -> None:
    rows, columns = sides
    if rows * columns > MAX_PIXELS:
        raise CorruptImage(f"{name}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}")


def normalized_batches(
    images: EachDecoded,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
    """(B, 3, H, W) float32 on the device and, by position in the batch, what is wrong with images that are black there.

    The next batch is made in a background thread, and the one after it is decoded by others.
    """
    numbers = np.arange(len(images))
    rows = (numbers[start : start + batch_size] for start in range(0, len(images), batch_size))

    def made() -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
        for pixels, broken in read(images, rows):
            yield normalize(to_device(pixels, device), mean, std), broken

    return prefetched(made)


def tensor_batches(
    images: Tensor,
    *,
    size: tuple[int, int],
    resize: str,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> Iterator[Tensor]:
    """(B, 3, height, width) float32, normalized, of one (N, 3, H, W) tensor on any device, uint8 or floating in [0, 1].

    uint8 is resized as files are; floating values are not rounded to whole ones on the way.
    Raises InputError for another shape or type, and for the first image with values outside [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise InputError(
            f"a tensor of images is (N, 3, H, W), RGB, uint8 or floating in [0, 1], not {_kind(images)} "
            f"{tuple(images.shape)}"
        )
    if len(images) and 0 in images.shape:
        raise InputError(f"images of {images.shape[2]} x {images.shape[3]} (height x width) hold no pixel")
    _check_area(tuple(images.shape[2:]), f"every image of {len(images)}")
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        if part.is_floating_point():
            part = part.float()
            inside = ((part >= 0) & (part <= 1)).flatten(1).all(1)
            if not inside.all():
                number = start + int(inside.int().argmin())
                raise InputError(
                    f"image {number} of {len(images)}: floating values are in [0, 1], not normalized and not in "
                    f"[0, 255]; its own are {part[number - start].min():g} to {part[number - start].max():g}"
                )
            part = 255 * part
        if tuple(part.shape[2:]) != size:
            # On the host, where uint8 has this operation too.
            part = functional.interpolate(part.cpu(), size, mode=resize, antialias=True)
            if part.is_floating_point():
                part = part.clamp(0, 255)  # which bicubic leaves
        yield normalize(to_device(part, device), mean, std)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
