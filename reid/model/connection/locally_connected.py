"""Locally connected ("unshared") convolution: every output position has its own kernel."""

from __future__ import annotations

from torch import Tensor, nn

from reid.errors import InputError
from reid.model.connection.product import kernel_bank_product
from reid.model.connection.sizes import Pair, check_channels, he_normal, output_size, pair


class LocallyConnected2d(nn.Module):
    """Locally connected layer (B, C, H, W) -> (B, O, h, w) of Taigman et al. 2014 (DeepFace), section 3.

        out(o, j, k) = bias[j, k](o) + Σ_{c, y, x} K[j, k](o, x, y, c) in(c, j s + y - p, k s + x - p)

    `weight` is (h, w, O, kw, kh, C), `bias` (h, w, O).

    Args:
        in_channels: C, channels of the input map.
        out_channels: O, channels of the output map.
        kernel_size: One number, or rows and columns.
        input_size: H and W.
        stride: One number, or rows and columns.
        padding: One number, or rows and columns.
        bias: Add a learnable bias per output position and channel.

    Raises:
        InputError: If the kernel is larger than the padded map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        input_size: Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_channels(in_channels, out_channels)
        self.kernel_size, self.stride, self.padding = pair(kernel_size), pair(stride), pair(padding)
        self.in_channels, self.out_channels, self.input_size = in_channels, out_channels, input_size
        self.output_size = output_size(input_size, self.kernel_size, self.stride, self.padding)
        self.weight = he_normal((*self.output_size, out_channels, *self.kernel_size[::-1], in_channels))
        self.bias = nn.Parameter(self.weight.new_zeros(*self.output_size, out_channels)) if bias else None

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the kernels.

        Args:
            maps: (B, C, H, W) floating, of the size the layer was built for.

        Returns:
            (B, O, h, w).

        Raises:
            InputError: If the maps have a different size.
        """
        if maps.shape[1:] != (self.in_channels, *self.input_size):
            height, width = self.input_size
            raise InputError(
                f"this locally connected layer takes maps of {self.in_channels} x {height} x {width}, not "
                f"{' x '.join(map(str, maps.shape[1:]))}; feed images of the size it was built for"
            )
        return kernel_bank_product(
            maps, self.weight, self.bias, stride=self.stride, padding=self.padding, size=self.output_size
        )

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            The settings shown by `repr`.
        """
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, {self.input_size} -> {self.output_size}, bias={self.bias is not None}"
        )
