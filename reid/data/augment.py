"""Augmentation of whole batches as tensors, without a loop over the images.

Random numbers come from a CPU generator wherever the images are, so a seed gives the same batch on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

_TRIES = 20


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x / 255 - mean) / std per channel. images: (B, 3, H, W) uint8. Returns (B, 3, H, W) float32."""
    means = torch.tensor(mean, dtype=torch.float64)
    scale = 1 / torch.tensor(std, dtype=torch.float64)
    slope = (scale / 255).to(images.device, torch.float32).view(1, -1, 1, 1)
    offset = (-means * scale).to(images.device, torch.float32).view(1, -1, 1, 1)
    return images.to(torch.float32).mul_(slope).add_(offset)


def flip(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with the given probability. images: (B, C, H, W) of any type."""
    # Indices rather than a mask: torch.where and masked writes are several times slower on uint8.
    chosen = (torch.rand(len(images), generator=generator) < probability).nonzero().squeeze(1).to(images.device)
    return images.index_copy(0, chosen, images.index_select(0, chosen).flip(3))


def pad_crop(images: torch.Tensor, pad: int, generator: torch.Generator) -> torch.Tensor:
    """Pad every side with `pad` black pixels and cut a random window of the old size, its place drawn per image.

    images: (B, C, H, W); black is 0, so this belongs before the normalisation.
    """
    if pad == 0:
        return images
    count, _, height, width = images.shape
    corner = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(images.device)
    windows = functional.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, corner[0], corner[1]]


def erase(
    images: torch.Tensor,
    probability: float,
    generator: torch.Generator,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
) -> torch.Tensor:
    """Random Erasing (Algorithm 1 of Zhong et al., AAAI 2020): set one rectangle per chosen image to 0.

    images: (B, C, H, W) float, normalised, where 0 is the mean of the data set. The rectangle's share of the image and
    its height / width are uniform in `area` and `aspect`, drawn again while it does not fit; an image for which 20
    draws fail stays whole. Returns a new tensor.
    """
    count, _, height, width = images.shape
    return images * _kept(count, (height, width), probability, generator, area, aspect).to(images.device)


def _kept(
    count: int,
    size: tuple[int, int],
    probability: float,
    generator: torch.Generator,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
) -> torch.Tensor:
    """(B, 1, H, W) float32, 0 in the erased rectangles and 1 elsewhere; on a CPU a product beats masked_fill."""
    height, width = size
    chosen = torch.rand(count, generator=generator) < probability
    pixels = _uniform((count, _TRIES), area, generator) * (height * width)
    ratio = _uniform((count, _TRIES), aspect, generator)
    tall = (pixels * ratio).sqrt().round().clamp_(min=1)
    wide = (pixels / ratio).sqrt().round().clamp_(min=1)
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    chosen &= fits.any(dim=1)
    place = torch.rand((2, count, 1), generator=generator)
    top = (place[0] * (height - tall + 1)).floor()
    left = (place[1] * (width - wide + 1)).floor()
    row, column = torch.arange(height), torch.arange(width)
    inside_rows = (row >= top) & (row < top + tall) & chosen.view(-1, 1)
    inside_columns = (column >= left) & (column < left + wide)
    return (~(inside_rows.view(count, 1, height, 1) & inside_columns.view(count, 1, 1, width))).float()


def augment(
    images: torch.Tensor,
    *,
    flip: float,
    pad: int,
    erasing: float,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Flip, pad-crop, normalise and erase a training batch.

    images: (B, 3, H, W) uint8. flip, erasing: probabilities, 0 leaves the step out; pad: pixels. Returns float32.
    """
    if flip > 0:
        images = _flip(images, flip, generator)
    normalised = normalise(pad_crop(images, pad, generator), mean, std)
    if erasing > 0:
        # What `erase` does, but in place: at 256x128 another 25 MB a batch would cost as much as the product.
        normalised.mul_(_kept(len(images), (images.shape[2], images.shape[3]), erasing, generator).to(images.device))
    return normalised


def _uniform(shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


# `augment` has a parameter of the same name as the function.
_flip = flip
