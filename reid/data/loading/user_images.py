"""Images of a user's program: files, Pillow images, arrays and tensors, preprocessed like image files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reid.data.images.decode import decode_image, resize_pixels, to_rgb
from reid.data.images.normalization import normalize
from reid.data.images.pixels import LazyImages, read_batches, to_device
from reid.data.loading.prefetch import prefetch
from reid.errors import InputError
from reid.io.images import MAX_PIXELS, CorruptImage

ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

# Pillow decodes an opened image on the first access to its pixels, which two threads may not do at once.
_DECODING = threading.Lock()


@dataclass(frozen=True, eq=False)
class ImageList:
    """A list of images as `reid.data.images.pixels.LazyImages`.

    Attributes:
        images: Paths, Pillow images, (H, W, 3) uint8 RGB arrays and (3, H, W) uint8 tensors, mixed and of any sizes.
        size: Height and width to resize to, in pixels.
        resize: One of `reid.data.images.decode.FILTERS`.
        threads: Number of threads that decode; 0 for `decoding_threads`.
    """

    images: Sequence[ImageInput]
    size: tuple[int, int]
    resize: str = "bilinear"
    threads: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def decode(self, number: int) -> np.ndarray:
        """Decode one image like a file with the same pixels.

        Args:
            number: Position of the image in the list, from 0.

        Returns:
            (3, height, width) uint8.

        Raises:
            CorruptImage: If the image cannot be read or is of another type; the message contains its position.
        """
        image, name = self.images[number], f"image {number} of {len(self)}"
        if isinstance(image, str | os.PathLike):
            try:
                return decode_image(os.fspath(image), self.size, self.resize)
            except InputError as error:
                raise CorruptImage(f"{name}: {error}") from None
        if isinstance(image, Image.Image):
            with _DECODING:
                image = to_rgb(image, name)
            return resize_pixels(np.array(image), self.size, self.resize)
        if isinstance(image, Tensor):
            return resize_pixels(_pixels_of_tensor(image, name), self.size, self.resize)
        if isinstance(image, np.ndarray):
            return resize_pixels(_pixels_of_array(image, name), self.size, self.resize)
        raise CorruptImage(
            f"{name}: unsupported type {type(image).__name__}; pass a path, a Pillow image, a (H, W, 3) uint8 RGB "
            "array or a (3, H, W) uint8 tensor"
        )


def _pixels_of_array(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise CorruptImage(f"{name}: an array must be (H, W, 3) uint8, RGB, not {image.dtype} {image.shape}")
    _check_area(image.shape[:2], name)
    return np.array(image, order="C")  # a copy, as torch has no read-only tensors


def _pixels_of_tensor(image: Tensor, name: str) -> np.ndarray:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise CorruptImage(
            f"{name}: a tensor in a list must be (3, H, W) uint8, RGB, not {_dtype(image)} {tuple(image.shape)}; stack "
            "tensors with values in [0, 1] to one of (N, 3, H, W)"
        )
    _check_area(tuple(image.shape[1:]), name)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def _check_area(sides: tuple[int, ...], name: str) -> None:
    rows, columns = sides
    if rows * columns > MAX_PIXELS:
        raise CorruptImage(f"{name}: {columns} x {rows} pixels, above the limit of {MAX_PIXELS:,}")


def normalized_batches(
    images: LazyImages,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
    """Iterate over images in normalized batches.

    The next batch is prepared in a background thread while the one after it is decoded by others.

    Args:
        images: Source of N images, decoded when they are needed.
        batch_size: Images per batch.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
        device: Where batches are needed.

    Returns:
        (B, 3, H, W) float32 on the device, black for images that cannot be read, and the errors of these by position
        in the batch.
    """
    numbers = np.arange(len(images))
    rows = (numbers[start : start + batch_size] for start in range(0, len(images), batch_size))

    def produce() -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
        for pixels, corrupt in read_batches(images, rows):
            yield normalize(to_device(pixels, device), mean, std), corrupt

    return prefetch(produce)


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
    """Iterate over one tensor of images in normalized batches.

    uint8 is resized like image files; floating-point values are not rounded.

    Args:
        images: (N, 3, H, W) RGB on any device, uint8 or floating in [0, 1].
        size: Height and width to resize to, in pixels.
        resize: One of `reid.data.images.decode.FILTERS`.
        batch_size: Images per batch.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
        device: Where batches are needed.

    Yields:
        (B, 3, height, width) float32 on the device.

    Raises:
        InputError: If the shape or type is wrong, or an image has values outside [0, 1]; the first such image is named.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise InputError(
            f"a tensor of images must be (N, 3, H, W), RGB, uint8 or floating in [0, 1], not {_dtype(images)} "
            f"{tuple(images.shape)}"
        )
    if len(images) and 0 in images.shape:
        raise InputError(f"images of {images.shape[2]} x {images.shape[3]} (height x width) have no pixels")
    _check_area(tuple(images.shape[2:]), f"every image of {len(images)}")
    images = images.detach()
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        if part.is_floating_point():
            part = part.float()
            inside = ((part >= 0) & (part <= 1)).flatten(1).all(1)
            if not inside.all():
                number = start + int(inside.int().argmin())
                raise InputError(
                    f"image {number} of {len(images)}: floating-point values must be in [0, 1], neither normalized nor "
                    f"in [0, 255]; these are {part[number - start].min():g} to {part[number - start].max():g}"
                )
            part = 255 * part
        if tuple(part.shape[2:]) != size:
            # On the CPU, which supports this operation for uint8, too.
            part = functional.interpolate(part.cpu(), size, mode=resize, antialias=True)
            if part.is_floating_point():
                part = part.clamp(0, 255)  # bicubic interpolation overshoots
        yield normalize(to_device(part, device), mean, std)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
