"""Color jitter of a whole batch, every image with factors and an order of its own.

Formulas and order are those of torchvision's ColorJitter on floating-point images, whose functions take one factor for
a whole batch. Nothing is rounded between the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid.data.augmentation import random_numbers as draws
from reid.data.images.normalization import empty_float

_NONE = -1
_ORDERS = np.array(list(itertools.permutations(range(4))))


@dataclass(frozen=True)
class Jitter:
    """How far colors change. brightness, contrast, saturation: the factor is uniform in max(0, 1 - x) .. 1 + x.

    hue: the shift is uniform in -x .. x, as part of the color circle, x at most 0.5. probability: that an image is
    changed at all.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.probability > 0 and any((self.brightness, self.contrast, self.saturation, self.hue))


NO_JITTER = Jitter()


def jitter_colors(images: Tensor, jitter: Jitter, table: np.ndarray) -> Tensor:
    """images: (B, 3, H, W) uint8; table: (B, COLUMNS) of `reid.data.augmentation.random_numbers`. Returns float32 in [0, 255]."""
    strength = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    low, high = np.maximum(0, 1 - strength), 1 + strength
    low[3], high[3] = -jitter.hue, jitter.hue
    factors = low + (high - low) * table[:, draws.FACTORS]
    order = _ORDERS[(table[:, draws.ORDER] * len(_ORDERS)).astype(np.int64)]
    order[table[:, draws.JITTER] >= jitter.probability] = _NONE
    order[np.append(strength, 0)[order] == 0] = _NONE
    # On a CPU image by image, since a single one stays in its cache: twenty times as fast.
    together = 1 if images.device.type == "cpu" else max(1, len(images))
    result = empty_float(images)
    for start in range(0, len(images), together):
        part = slice(start, start + together)
        result[part] = _changed(images[part].to(torch.float32), factors[part], order[part])
    return result


def _changed(images: Tensor, factors: np.ndarray, order: np.ndarray) -> Tensor:
    """factors: (B, 4) float64, of each step. order: (B, 4) int64, which step is done first to last, or _NONE."""
    for place, (step, change) in itertools.product(range(4), enumerate(_STEPS)):
        rows = np.flatnonzero(order[:, place] == step)
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
    """Turn the hue of HSV, saturation and value kept. shift: part of the color circle."""
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
    # Each channel is `value` within a sixth on both sides of its own hue and `low` beyond two, with slopes between.
    own = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    along = own + sixth
    along -= 6 * (along / 6).floor_()  # what remainder gives, which a CPU takes long for
    return value[:, None] - span[:, None] * torch.minimum(along, 4 - along).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


_STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
