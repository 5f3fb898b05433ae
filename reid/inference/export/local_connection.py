"""Locally connected layers in operations that can be traced for any batch size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reid.model.connection import LocallyConnected2d


class UnfoldedLocal(nn.Module):
    """A `LocallyConnected2d` as unfolding followed by one matrix product per position.

    Windows are copied, so it needs kh * kw times the memory of the feature maps.

    Args:
        layer: The layer whose weights are copied.
    """

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        height, width, outputs, kernel_width, kernel_height, channels = layer.weight.shape
        self.kernel_size, self.stride, self.padding = (kernel_height, kernel_width), layer.stride, layer.padding
        self.output_size = (height, width)
        # (h, w, O, kw, kh, C) -> (positions, O, C * kh * kw), the order in which `unfold` flattens a window
        kernels = layer.weight.detach().permute(0, 1, 2, 5, 4, 3)
        self.register_buffer(
            "kernels", kernels.reshape(height * width, outputs, channels * kernel_height * kernel_width)
        )
        bias = None if layer.bias is None else layer.bias.detach().reshape(height * width, outputs, 1)
        self.register_buffer("bias", bias)

    kernels: Tensor
    bias: Tensor | None

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            maps: (B, C, H, W) feature maps.

        Returns:
            (B, O, h, w) feature maps.
        """
        windows = functional.unfold(maps, self.kernel_size, padding=self.padding, stride=self.stride)
        out = self.kernels @ windows.permute(2, 1, 0)
        if self.bias is not None:
            out = out + self.bias
        return out.permute(2, 1, 0).unflatten(2, self.output_size)


def unfold_local_connections(network: nn.Module) -> None:
    """Replace every locally connected layer by an `UnfoldedLocal`, in place.

    Args:
        network: The network to modify.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LocallyConnected2d):
            network.set_submodule(name, UnfoldedLocal(layer))
