"""Whole images or regions of them, each in its own shape, for the retrieval of landmarks and objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from reid.data.images.decode import read_image
from reid.data.images.normalization import normalize
from reid.data.loading.prefetch import prefetch
from reid.errors import InputError

LONGEST_SIDE = 1024
# How far a box may extend beyond its image, as a fraction of the image's side; more means a different image.
_BOX_TOLERANCE = 0.01

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class WholeImage:
    """An image file or a region of it.

    Attributes:
        path: Image file.
        box: Left, top, right, bottom of the region in pixels of the file; None for the whole image.
    """

    path: str
    box: Box | None = None


def read_whole_image(image: WholeImage, *, longest_side: int = LONGEST_SIDE) -> np.ndarray:
    """Decode an image, crop its box and shrink it.

    A box is rounded to whole pixels and cropped first, then shrunk by the same factor as its whole image would be, so
    that objects have the same scale in query and gallery; so do the authors of revisited Oxford / Paris. Images are
    never enlarged. The filter is Lanczos, with the aspect ratio kept to the pixel. An EXIF rotation is not applied, as
    boxes refer to the pixels as stored.

    Args:
        image: File and the box to crop.
        longest_side: Maximum of the longer side of the whole file in pixels.

    Returns:
        (3, h, w) uint8 RGB.

    Raises:
        InputError: If the image is missing or unreadable, `longest_side` is below 1, or the box is empty or extends
            beyond the image by more than 1% of it (by less, it is clipped).
    """
    if longest_side < 1:
        raise InputError(f"the longest side of an image must be at least 1 pixel, not {longest_side}")
    pixels = read_image(image.path)
    factor = min(1.0, longest_side / max(pixels.size))
    if image.box is not None:
        pixels = pixels.crop(_whole_pixels(image.path, image.box, pixels.size))
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in pixels.size)
        pixels = pixels.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(pixels).transpose(2, 0, 1)


def _whole_pixels(path: str, box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    described = f"{path}: the box {', '.join(f'{value:g}' for value in box)} (left, top, right, bottom)"
    if not all(math.isfinite(value) for value in box):
        raise InputError(f"{described} contains a number that is not finite")
    left, top, right, bottom = (round(value) for value in box)
    width, height = size
    slack = [max(1.0, _BOX_TOLERANCE * side) for side in size]
    if min(left + slack[0], top + slack[1], width + slack[0] - right, height + slack[1] - bottom) < 0:
        raise InputError(
            f"{described} extends beyond the image of {width} x {height}; was the image resized or rotated?"
        )
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if left >= right or top >= bottom:
        raise InputError(f"{described} contains no pixel of the image of {width} x {height}")
    return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class WholeImageLoader:
    """Images in order, normalized, in batches of equal size.

    Attributes:
        images: N image files or regions.
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
        device: Where batches are needed.
        longest_side: Maximum of the longer side of an image in pixels.
        batch_size: Maximum number of images per batch; consecutive images of equal size form one.
    """

    images: Sequence[WholeImage]
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str
    longest_side: int = LONGEST_SIDE
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size} must be at least 1")

    def __len__(self) -> int:
        """Number of images; that of the batches is unknown until the images are read."""
        return len(self.images)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield (B, 3, h, w) float32 on the device, h and w varying; the next batch is prepared meanwhile."""
        for pixels in prefetch(self._pixel_batches):
            yield normalize(torch.from_numpy(pixels).to(self.device), self.mean, self.std)

    def _pixel_batches(self) -> Iterator[np.ndarray]:
        pending: list[np.ndarray] = []
        for image in self.images:
            pixels = read_whole_image(image, longest_side=self.longest_side)
            if pending and (pixels.shape != pending[0].shape or len(pending) == self.batch_size):
                yield np.stack(pending)
                pending = []
            pending.append(pixels)
        if pending:
            yield np.stack(pending)
