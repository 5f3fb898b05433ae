"""What the four patterns of connection cost for the same maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reid.errors import InputError
from reid.model.connection.sizes import Pair, output_size, pair


@dataclass(frozen=True)
class ConnectionCost:
    """parameters: weights and biases of the layer. multiply_adds: for one image, biases not counted."""

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
    """Full connection, local connection, tiled convolution and convolution between maps of the same shapes.

    All lead from (C, H, W) to (O, h, w), h and w as the kernel, stride and padding make them. Full connection is one
    matrix C H W x O h w. The other three do the same arithmetic (places in the padding counted) and differ in how many
    kernels there are: h w, t², 1. Raises InputError for a kernel larger than the padded map and a tile below 1.
    """
    kernel, tiles = pair(kernel_size), pair(tile)
    size = output_size(input_size, kernel, pair(stride), pair(padding))
    if min(tiles) < 1:
        raise InputError(f"a tiled convolution repeats after 1 place or more, not after {tiles}")
    places, one_kernel = math.prod(size), in_channels * out_channels * math.prod(kernel)
    full = in_channels * math.prod(input_size) * out_channels * places
    costs = [ConnectionCost("full", full + bias * out_channels * places, full)]
    for pattern, kernels in (("local", places), ("tiled", math.prod(tiles)), ("convolution", 1)):
        parameters = kernels * (one_kernel + bias * out_channels)
        costs.append(ConnectionCost(pattern, parameters, places * one_kernel))
    return tuple(costs)
