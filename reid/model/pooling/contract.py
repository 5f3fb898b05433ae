"""The base class of all poolings."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError


class Pooling(nn.Module, ABC):
    """Base class of poolings: maps (B, C, h, w) floating -> (B, width(C)) float32, or float64 for float64 maps.

    The computation is in float32 at least, even under autocast, so that a backbone in bfloat16 adds no more rounding
    than necessary.

    Args:
        channels: Number of channels C; most poolings do not use it.
        l2: Normalize the pooled vector to unit length, as retrieval by only the descriptors does.
    """

    min_descriptors: int = 0
    """Minimum number of local descriptors for `initialize`; 0 if it needs none."""

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__()
        self.l2 = l2

    def width(self, channels: int) -> int:
        """Compute the width of the pooled vector.

        Args:
            channels: Number of channels of the map.

        Returns:
            Number of dimensions of the pooled vector.
        """
        return channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pool maps.

        Args:
            maps: (B, C, h, w) floating.

        Returns:
            (B, width(C)) float32, or float64 for float64 maps.
        """
        with torch.autocast(maps.device.type, enabled=False):
            pooled = self._pool(_at_least_float32(maps))
            return functional.normalize(pooled, dim=1) if self.l2 else pooled

    def attention(self, maps: Tensor) -> Tensor:
        """Compute the weight of every position.

        Args:
            maps: (B, C, h, w) floating.

        Returns:
            (B, h, w), or (B, K, h, w) for a pooling with K separate weightings.

        Raises:
            InputError: If the pooling does not weight positions.
        """
        with torch.autocast(maps.device.type, enabled=False):
            return self._attention(_at_least_float32(maps))

    def check_map(self, height: int, width: int) -> None:
        """Check that maps are large enough.

        Args:
            height: Height of the map.
            width: Width of the map.

        Raises:
            InputError: If they are not.
        """

    def initialize(self, descriptors: np.ndarray, *, seed: int) -> None:
        """Initialize parameters from local descriptors of the training set.

        Args:
            descriptors: (N, C) float32, N at least `min_descriptors`.
            seed: Seed of the random numbers used.
        """

    @abstractmethod
    def _pool(self, maps: Tensor) -> Tensor:
        """Pool maps (B, C, h, w) float32 or float64 to (B, width(C)), before the normalization to unit length."""

    def _attention(self, maps: Tensor) -> Tensor:
        """Compute `attention` of maps that are float32 or float64."""
        raise InputError(
            f"{type(self).__name__} pooling has no attention map to visualize; crow, the weighted poolings and the "
            "VLADs have one"
        )


def _at_least_float32(maps: Tensor) -> Tensor:
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
