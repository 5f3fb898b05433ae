"""From a map of activations to one vector an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Pooling(nn.Module):
    """Maps (B, C, h, w) of any floating type to (B, width(C)) float32.

    The result is float32 whatever the map is, so that a backbone in bfloat16 hands no more rounding on than it must.
    """

    def width(self, channels: int) -> int:
        """Width of the pooled vector for a map of `channels` channels."""
        return channels


class Average(Pooling):
    """The mean over all places."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3), dtype=torch.float32)


class Max(Pooling):
    """The largest value over all places."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax((2, 3)).float()


class AverageMax(Pooling):
    """Mean and largest value, one after the other: twice the channels."""

    def width(self, channels: int) -> int:
        return 2 * channels

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat((maps.mean((2, 3), dtype=torch.float32), maps.amax((2, 3)).float()), dim=1)


POOLINGS: dict[str, Callable[[], Pooling]] = {"average": Average, "max": Max, "average_max": AverageMax}
