"""Poolings without parameters: average, maximum, and both."""

from __future__ import annotations

import torch
from torch import Tensor

from reid.model.pooling.contract import Pooling


class Average(Pooling):
    """Mean over all positions: SPoC without its center prior (Babenko and Lempitsky 2015)."""

    def _pool(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class Max(Pooling):
    """Maximum over all positions: MAC (Razavian et al. 2016)."""

    def _pool(self, maps: Tensor) -> Tensor:
        return maps.amax((2, 3))


class AverageMax(Pooling):
    """Mean and maximum over all positions, concatenated."""

    def width(self, channels: int) -> int:
        """Compute the width of the pooled vector.

        Args:
            channels: Number of channels of the map.

        Returns:
            Twice the channels.
        """
        return 2 * channels

    def _pool(self, maps: Tensor) -> Tensor:
        return torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), dim=1)
