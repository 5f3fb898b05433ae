"""Whole images, or boxes of them, each in its own shape: what retrieval of landmarks and objects describes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from reid.data.images.decode import read_image
from reid.data.images.normalization import normalize
from reid.data.loading.prefetch import prefetched
from reid.errors import InputError

LONGEST_SIDE = 1024
# A box may reach beyond its image by so much, as a share of the image's side; more means another image.
_BEYOND = 0.01

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class WholeImage:
    """An image file and, where a part of it is meant, the box: left, top, right, bottom in pixels of the file."""

    path: str
    box: Box | None = None


def read_whole_image(image: WholeImage, *, longest_side: int = LONGEST_SIDE) -> np.ndarray:
    """(3, h, w) uint8 RGB, shrunk so that the longer side of the whole file is at most `longest_side` pixels.

    A box is rounded to whole pixels and cut out first, then shrunk by as much as its whole image would be, so that
    things keep their size on both sides of a comparison; so do the authors of revisited Oxford / Paris. Nothing is ever
    enlarged. Lanczos, aspect kept to the pixel; an EXIF rotation is not applied, boxes refer to the pixels as stored.
    Raises InputError as `reid.data.images.cache.decode_images` does, for a longest side below 1, and for a box that is empty
    or reaches beyond the image by more than a hundredth of it (by less it is cut).
    """
    if longest_side < 1:
        raise InputError(f"the longest side of an image must be 1 pixel or more, not {longest_side}")
    pixels = read_image(image.path)
    factor = min(1.0, longest_side / max(pixels.size))
    if image.box is not None:
        pixels = pixels.crop(_whole_pixels(image.path, image.box, pixels.size))
    if factor < 1:
        width, height = (max(1, round(side * factor)) for side in pixels.size)
        pixels = pixels.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(pixels).transpose(2, 0, 1)


def _whole_pixels(path: str, box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    named = f"{path}: the box {', '.join(f'{value:g}' for value in box)} (left, top, right, bottom)"
    if not all(math.isfinite(value) for value in box):
        raise InputError(f"{named} is not of finite numbers")
    left, top, right, bottom = (round(value) for value in box)
    width, height = size
    slack = [max(1.0, _BEYOND * side) for side in size]
    if min(left + slack[0], top + slack[1], width + slack[0] - right, height + slack[1] - bottom) < 0:
        raise InputError(f"{named} reaches beyond the image of {width} x {height}; was the image resized or turned?")
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if left >= right or top >= bottom:
        raise InputError(f"{named} holds no pixel of the image of {width} x {height}")
    return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class WholeImageLoader:
    """Images in their order, normalized, in batches of one size.

    batch_size: neighbors of equal size come together, this many at most. mean, std: of the RGB channels in [0, 1].
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
        """Images, not batches: how many of these there are is known when they are read."""
        return len(self.images)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """(B, 3, h, w) float32 on the device, h and w those of the batch; the next one is read meanwhile."""
        for pixels in prefetched(self._stacked):
            yield normalize(torch.from_numpy(pixels).to(self.device), self.mean, self.std)

    def _stacked(self) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        for image in self.images:
            pixels = read_whole_image(image, longest_side=self.longest_side)
            if waiting and (pixels.shape != waiting[0].shape or len(waiting) == self.batch_size):
                yield np.stack(waiting)
                waiting = []
            waiting.append(pixels)
        if waiting:
            yield np.stack(waiting)
