"""Cosine normalization: Luo et al., "Cosine Normalization: Using Cosine Similarity Instead of Dot Product", 2017."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class CosineConv2d(nn.Module):
    """Convolution of cosines, scale · w·x / (‖w‖ ‖x‖) + bias, x the window at a position: (B, C, H, W) -> (B, O, h, w).

    The scale and the bias, one number per output channel each, are an addition: the paper has bare cosines. The scale
    starts at √D, with D the number of values in a window, such that the output for unrelated w and x has variance 1. A
    window of zeros gives the bias.

    Args:
        convolution: Convolution whose weight, stride, padding, dilation and groups are used.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.stride, self.padding = convolution.stride, convolution.padding
        self.dilation, self.groups = convolution.dilation, convolution.groups
        outputs = len(self.weight)
        self.scale = nn.Parameter(self.weight.new_full((outputs,), math.sqrt(self.weight[0].numel())))
        self.bias = nn.Parameter(self.weight.new_zeros(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps.

        Args:
            maps: (B, C, H, W) floating.

        Returns:
            (B, O, h, w), in the dtype that a convolution would have.
        """
        directions = functional.normalize(self.weight.flatten(1), dim=1).view_as(self.weight)
        products = functional.conv2d(maps, directions, None, self.stride, self.padding, self.dilation, self.groups)
        with torch.autocast(maps.device.type, enabled=False):
            squares = maps.to(torch.promote_types(maps.dtype, torch.float32)).square()
            squares = squares.unflatten(1, (self.groups, -1)).sum(2)
            ones = squares.new_ones(self.groups, 1, *self.weight.shape[2:])
            lengths = functional.conv2d(
                squares, ones, None, self.stride, self.padding, self.dilation, self.groups
            ).clamp(min=1e-12)
            lengths = lengths.rsqrt().repeat_interleave(len(self.weight) // self.groups, dim=1)
            cosines = products * lengths
            out = cosines * self.scale[:, None, None] + self.bias[:, None, None]
        return out.to(products.dtype)
