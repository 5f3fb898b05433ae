"""A small network for comparing parts from scratch; its name says how one of its layers is connected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from reid.errors import InputError
from reid.model.backbones.input_size import check_image_size
from reid.model.connection import LocallyConnected2d, TiledConv2d

CHANNELS, MAP = 32, (16, 8)
OUT_CHANNELS = 128


class FullConnection(nn.Module):
    """Fully connected layer between maps of the same shape: (B, C, h, w) -> (B, C, h, w).

    Args:
        channels: C, channels of the input and output maps.
        size: h and w.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        width = channels * math.prod(size)
        self.linear = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.linear.weight, std=math.sqrt(2 / width))

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            maps: (B, C, h, w) floating.

        Returns:
            Maps of the same shape.
        """
        return self.linear(maps.flatten(1)).view(maps.shape)


CONNECTIONS: dict[str, Callable[[], nn.Module]] = {
    "small_full": lambda: FullConnection(CHANNELS, MAP),
    "small_local": lambda: LocallyConnected2d(CHANNELS, CHANNELS, 3, input_size=MAP, padding=1, bias=False),
    "small_tiled": lambda: TiledConv2d(CHANNELS, CHANNELS, 3, tile=2, padding=1, bias=False),
    "small_convolution": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
}


class SmallTrunk(nn.Module):
    """Small backbone (B, 3, 128, 64) -> (B, 128, 16, 8).

    Three 3x3 convolutions of stride 2, the layer `connection`, one more convolution, each followed by batch
    normalization and a ReLU. `connection` leads from 32 x 16 x 8 to the same shape, with 3x3 kernels unless it is full.

    Args:
        name: A key of `CONNECTIONS`.
    """

    input_size = (128, 64)
    map_size = MAP
    out_channels = OUT_CHANNELS

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.conv1, self.bn1 = _convolution(3, 16, stride=2)
        self.conv2, self.bn2 = _convolution(16, 24, stride=2)
        self.conv3, self.bn3 = _convolution(24, CHANNELS, stride=2)
        self.connection, self.bn4 = CONNECTIONS[name](), nn.BatchNorm2d(CHANNELS)
        self.conv5, self.bn5 = _convolution(CHANNELS, OUT_CHANNELS)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, 128, 64) float32, normalized.

        Returns:
            (B, 128, 16, 8).

        Raises:
            InputError: If the images have a different size.
        """
        check_image_size(images, self.input_size, self.name)
        maps = self.bn1(self.conv1(images)).relu()
        maps = self.bn2(self.conv2(maps)).relu()
        maps = self.bn3(self.conv3(maps)).relu()
        maps = self.bn4(self.connection(maps)).relu()
        return self.bn5(self.conv5(maps)).relu()


def small_trunk(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> SmallTrunk:
    """Build the backbone.

    Args:
        name: A key of `CONNECTIONS`.
        weights: Must be None, there are no published weights.
        source: Name of the weights in error messages.

    Returns:
        Backbone with the given weights or new ones.

    Raises:
        InputError: If weights are given.
    """
    if weights is not None:
        raise InputError(
            f"{source}: {name} is trained from scratch and has no published weights; set MODEL.WEIGHTS none"
        )
    return SmallTrunk(name)


def _convolution(d_in: int, d_out: int, stride: int = 1) -> tuple[nn.Conv2d, nn.Module]:
    return nn.Conv2d(d_in, d_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(d_out)
