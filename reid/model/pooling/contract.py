"""What every pooling keeps to."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError


class Pooling(nn.Module, ABC):
    """Maps (B, C, h, w) of any floating type to (B, width(C)) float32 (float64 for float64 maps).

    It is computed in float32 at least, under autocast too, so that a backbone in bfloat16 hands no more rounding on
    than it must. l2: the pooled vector gets unit length, as retrieval by descriptors alone publishes it.
    """

    least_descriptors: int = 0
    """How many local descriptors `initialize` needs at least; 0: it starts without any."""

    def __init__(self, *, l2: bool = False) -> None:
        super().__init__()
        self.l2 = l2

    def width(self, channels: int) -> int:
        """Width of the pooled vector for a map of `channels` channels."""
        return channels

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            pooled = self.pool(_at_least_float32(maps))
            return functional.normalize(pooled, dim=1) if self.l2 else pooled

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) float32 or float64 -> (B, width(C)), before the unit length."""

    def attention(self, maps: Tensor) -> Tensor:
        """How much each place counts: (B, h, w), or (B, K, h, w) where a place counts for K things apart.

        Raises InputError for a pooling that weighs no places.
        """
        with torch.autocast(maps.device.type, enabled=False):
            return self.weights(_at_least_float32(maps))

    def weights(self, maps: Tensor) -> Tensor:
        """`attention` of maps that are float32 or float64 already."""
        raise InputError(
            f"{type(self).__name__} pooling has no weight a place to draw; crow, the weighted poolings and the VLADs do"
        )

    def check_map(self, height: int, width: int) -> None:
        """Raise InputError where maps of height x width places are too small."""

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        """Start from local descriptors of the training set, (N, C) float32, N at least `least_descriptors`."""


def _at_least_float32(maps: Tensor) -> Tensor:
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
