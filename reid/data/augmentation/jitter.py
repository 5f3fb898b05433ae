"""Color jitter of a whole batch, each image with its own factors and order.

The formulas are those of torchvision's ColorJitter on floating-point images, whose functions take one factor per batch.
Nothing is rounded between the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid.data.augmentation import random_numbers
from reid.data.images.normalization import empty_float

_NONE = -1
_ORDERS = np.array(list(itertools.permutations(range(4))))


@dataclass(frozen=True)
class Jitter:
    """Strength of the color jitter.

    Attributes:
        brightness: x for a factor uniform in max(0, 1 - x) .. 1 + x.
        contrast: Same as `brightness`, for the contrast.
        saturation: Same as `brightness`, for the saturation.
        hue: x for a shift uniform in -x .. x, as a fraction of the color circle; at most 0.5.
        probability: Probability that an image is changed at all.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0

    @property
    def enabled(self) -> bool:
        """Whether any image can be changed."""
        return self.probability > 0 and any((self.brightness, self.contrast, self.saturation, self.hue))


NO_JITTER = Jitter()


def jitter_colors(images: Tensor, jitter: Jitter, table: np.ndarray) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image in a random order.

    Args:
        images: (B, 3, H, W) uint8; not modified.
        jitter: Strength of the changes.
        table: (B, COLUMNS) of `reid.data.augmentation.random_numbers.random_table`.

    Returns:
        (B, 3, H, W) float32 in [0, 255].
    """
    strength = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    low, high = np.maximum(0, 1 - strength), 1 + strength
    low[3], high[3] = -jitter.hue, jitter.hue
    factors = low + (high - low) * table[:, random_numbers.FACTORS]
    order = _ORDERS[(table[:, random_numbers.ORDER] * len(_ORDERS)).astype(np.int64)]
    order[table[:, random_numbers.JITTER] >= jitter.probability] = _NONE
    order[np.append(strength, 0)[order] == 0] = _NONE
    # Image by image on a CPU, where a single one stays in the cache: twenty times as fast.
    batch_size = 1 if images.device.type == "cpu" else max(1, len(images))
    result = empty_float(images)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        result[part] = _apply(images[part].to(torch.float32), factors[part], order[part])
    return result


def _apply(images: Tensor, factors: np.ndarray, order: np.ndarray) -> Tensor:
    """Apply the steps with (B, 4) float64 factors in (B, 4) int64 order, where _NONE skips a step."""
    for position, (step, change) in itertools.product(range(4), enumerate(_STEPS)):
        rows = np.flatnonzero(order[:, position] == step)
        if not len(rows):
            continue
        factor = torch.from_numpy(factors[rows, step]).to(images.device, torch.float32).view(-1, 1, 1, 1)
        if len(rows) == len(images):
            images = change(images, factor)
        else:
            index = torch.from_numpy(rows).to(images.device)
            images[index] = change(images[index], factor)
    return images


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 255)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images).mean(dim=(2, 3), keepdim=True), images, factor).clamp_(0, 255)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images), images, factor).clamp_(0, 255)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue of HSV by a fraction of the color circle, keeping saturation and value."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = value - low
    divisor = torch.where(span > 0, span, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixth = (sixth + 6 * shift[:, 0])[:, None]
    # Each channel is `value` up to one sixth from its own hue, `low` beyond two, and linear in between.
    own = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    along = own + sixth
    along -= 6 * (along / 6).floor_()  # like torch.remainder, which is slow on a CPU
    return value[:, None] - span[:, None] * torch.minimum(along, 4 - along).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


_STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
