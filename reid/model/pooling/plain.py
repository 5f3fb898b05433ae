"""Poolings without a parameter: average, max, and both."""

from __future__ import annotations

import torch
from torch import Tensor

from reid.model.pooling.contract import Pooling


class Average(Pooling):
    """The mean over all places: SPoC without its center prior (Babenko and Lempitsky 2015)."""

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(l2=l2)

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class Max(Pooling):
    """The largest value over all places: MAC (Razavian et al. 2016)."""

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(l2=l2)

    def pool(self, maps: Tensor) -> Tensor:
        return maps.amax((2, 3))


class AverageMax(Pooling):
    """Mean and largest value, one after the other: twice the channels."""

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(l2=l2)

    def width(self, channels: int) -> int:
        return 2 * channels

    def pool(self, maps: Tensor) -> Tensor:
        return torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), dim=1)
