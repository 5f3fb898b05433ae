"""Flattening: the feature map as one vector, as it comes before a fully connected layer."""

from __future__ import annotations

from torch import Tensor

from reid.errors import InputError
from reid.model.pooling.contract import Pooling


class Flatten(Pooling):
    """Maps (B, C, h, w) -> (B, C h w), channel by channel and row by row, the order of Caffe.

    It needs maps of one size and is therefore not in `POOLINGS`, whose poolings take any.

    Args:
        channels: Number of channels C, unused.
        size: Height and width of the maps.
    """

    def __init__(self, channels: int, *, size: tuple[int, int]) -> None:
        super().__init__(channels)
        self.size = size

    def width(self, channels: int) -> int:
        """Compute the width of the flattened vector.

        Args:
            channels: Number of channels of the map.

        Returns:
            C h w.
        """
        return channels * self.size[0] * self.size[1]

    def check_map(self, height: int, width: int) -> None:
        """Check the size of a map.

        Args:
            height: Height of the map.
            width: Width of the map.

        Raises:
            InputError: If it is not the size this pooling was built for.
        """
        if (height, width) != self.size:
            raise InputError(
                f"flattening was built for maps of {self.size[0]} x {self.size[1]}, not {height} x {width}; "
                "give images of the size the backbone was designed for"
            )

    def _pool(self, maps: Tensor) -> Tensor:
        self.check_map(maps.shape[2], maps.shape[3])
        return maps.flatten(1)
