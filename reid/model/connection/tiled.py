"""Tiled convolution: neighboring positions have different kernels, which repeat with a period."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError
from reid.model.connection.product import kernel_bank_product
from reid.model.connection.sizes import Pair, check_channels, he_normal, output_size, pair


class TiledConv2d(nn.Module):
    """Tiled convolution (B, C, H, W) -> (B, O, h, w) of Ngiam et al. 2010 (Tiled Convolutional Neural Networks).

        out(o, j, k) = bias[j', k'](o) + Σ_{c, y, x} K[j', k'](o, x, y, c) in(c, j s + y - p, k s + x - p)

    with j' = j mod t and k' = k mod t. The maps may have any size that holds a kernel; if they have fewer positions
    than t, some kernels are unused. `weight` is (t, t, O, kw, kh, C), `bias` (t, t, O).

    Args:
        in_channels: C, channels of the input map.
        out_channels: O, channels of the output map.
        kernel_size: One number, or rows and columns.
        tile: Period t: one number, or rows and columns. 1 is a convolution; the size of the output makes it a locally
            connected layer.
        stride: One number, or rows and columns.
        padding: One number, or rows and columns.
        bias: Add a learnable bias per kernel and channel.

    Raises:
        InputError: If t < 1 or the layer has no channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        tile: int | Pair = 2,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_channels(in_channels, out_channels)
        self.kernel_size, self.stride, self.padding = pair(kernel_size), pair(stride), pair(padding)
        self.in_channels, self.out_channels, self.tile = in_channels, out_channels, pair(tile)
        if min(self.tile) < 1:
            raise InputError(f"a tiled convolution needs a period of 1 or more, not {self.tile}")
        self.weight = he_normal((*self.tile, out_channels, *self.kernel_size[::-1], in_channels))
        self.bias = nn.Parameter(self.weight.new_zeros(*self.tile, out_channels)) if bias else None

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the kernels.

        Args:
            maps: (B, C, H, W) floating.

        Returns:
            (B, O, h, w).

        Raises:
            InputError: If the number of channels differs or the kernel is larger than the padded map.
        """
        if maps.shape[1] != self.in_channels:
            raise InputError(f"a tiled convolution of {self.in_channels} input channels got maps with {maps.shape[1]}")
        size = output_size((maps.shape[2], maps.shape[3]), self.kernel_size, self.stride, self.padding)
        # A small tile is one convolution with one channel per position in it; a large one would be mostly zeros.
        if max(self.tile) <= 3:
            return self._one_convolution(maps, size)
        return kernel_bank_product(maps, self.weight, self.bias, stride=self.stride, padding=self.padding, size=size)

    def _one_convolution(self, maps: Tensor, size: Pair) -> Tensor:
        (th, tw), (kh, kw), (down, right), (top, left) = self.tile, self.kernel_size, self.stride, self.padding
        rows, columns = -(-size[0] // th), -(-size[1] // tw)
        height, width = kh + (th - 1) * down, kw + (tw - 1) * right  # the receptive field of a tile of outputs
        kernels = maps.new_zeros(self.out_channels, th, tw, self.in_channels, height, width, dtype=self.weight.dtype)
        for j in range(th):
            for k in range(tw):
                rows_of_kernel, columns_of_kernel = slice(j * down, j * down + kh), slice(k * right, k * right + kw)
                kernels[:, j, k, :, rows_of_kernel, columns_of_kernel] = self.weight[j, k].permute(0, 3, 2, 1)
        bias = None if self.bias is None else self.bias.permute(2, 0, 1).flatten()
        # Zeros at the far ends complete the last tiles; their outputs are cut off again.
        beyond = [
            max(0, (count - 1) * period * step + wide - length - pad)
            for count, period, step, wide, length, pad in (
                (columns, tw, right, width, maps.shape[3], left),
                (rows, th, down, height, maps.shape[2], top),
            )
        ]
        maps = functional.pad(maps, (left, beyond[0], top, beyond[1]))
        out = functional.conv2d(maps, kernels.flatten(0, 2), bias, (th * down, tw * right))
        out = out[:, :, :rows, :columns].unflatten(1, (self.out_channels, th, tw))
        return out.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)[:, :, : size[0], : size[1]]

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            The settings shown by `repr`.
        """
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, tile={self.tile}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )
