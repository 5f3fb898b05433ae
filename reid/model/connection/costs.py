"""Parameters and multiply-adds of the four connections between the same maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reid.errors import InputError
from reid.model.connection.sizes import Pair, output_size, pair


@dataclass(frozen=True)
class ConnectionCost:
    """The cost of one connection.

    Attributes:
        pattern: "full", "local", "tiled" or "convolution".
        parameters: Number of weights and biases of the layer.
        multiply_adds: Number of multiply-adds per image, without biases.
    """

    pattern: str
    parameters: int
    multiply_adds: int


def connection_costs(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Pair,
    *,
    input_size: Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    tile: int | Pair = 2,
    bias: bool = True,
) -> tuple[ConnectionCost, ...]:
    """Compare full connection, local connection, tiled convolution and convolution between maps of the same shapes.

    All lead from (C, H, W) to (O, h, w), with h and w determined by kernel, stride and padding. Full connection is one
    matrix C H W x O h w. The other three do the same arithmetic (positions in the padding counted) and differ in the
    number of kernels: h w, t², 1.

    Args:
        in_channels: C, channels of the input map.
        out_channels: O, channels of the output map.
        kernel_size: One number, or rows and columns.
        input_size: H and W.
        stride: One number, or rows and columns.
        padding: One number, or rows and columns.
        tile: Period t of the tiled convolution: one number, or rows and columns.
        bias: Whether to count biases.

    Returns:
        Parameters and operations of each connection.

    Raises:
        InputError: If the kernel is larger than the padded map or a tile is below 1.
    """
    kernel, tiles = pair(kernel_size), pair(tile)
    size = output_size(input_size, kernel, pair(stride), pair(padding))
    if min(tiles) < 1:
        raise InputError(f"a tiled convolution needs a period of 1 or more, not {tiles}")
    positions, one_kernel = math.prod(size), in_channels * out_channels * math.prod(kernel)
    full = in_channels * math.prod(input_size) * out_channels * positions
    costs = [ConnectionCost("full", full + bias * out_channels * positions, full)]
    for pattern, kernels in (("local", positions), ("tiled", math.prod(tiles)), ("convolution", 1)):
        parameters = kernels * (one_kernel + bias * out_channels)
        costs.append(ConnectionCost(pattern, parameters, positions * one_kernel))
    return tuple(costs)
