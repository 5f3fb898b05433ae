"""Local connection in operations that other programs know: its own row after row cannot be traced for any batch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reid.model.connection import LocallyConnected2d


class UnfoldedLocal(nn.Module):
    """What `layer` computes, (B, C, H, W) -> (B, O, h, w): every window beside its kernel, one product for each place.

    Windows are copied, so it takes more memory than the layer: kh kw times that of the maps.
    """

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        height, width, outputs, across, down, channels = layer.weight.shape
        self.kernel_size, self.stride, self.padding = (down, across), layer.stride, layer.padding
        self.output_size = (height, width)
        # (h, w, O, kw, kh, C) -> (places, O, C kh kw), the order in which `unfold` lays a window down
        kernels = layer.weight.detach().permute(0, 1, 2, 5, 4, 3)
        self.register_buffer("kernels", kernels.reshape(height * width, outputs, channels * down * across))
        bias = None if layer.bias is None else layer.bias.detach().reshape(height * width, outputs, 1)
        self.register_buffer("bias", bias)

    kernels: Tensor
    bias: Tensor | None

    def forward(self, maps: Tensor) -> Tensor:
        windows = functional.unfold(maps, self.kernel_size, padding=self.padding, stride=self.stride)
        out = self.kernels @ windows.permute(2, 1, 0)
        if self.bias is not None:
            out = out + self.bias
        return out.permute(2, 1, 0).unflatten(2, self.output_size)


def unfold_local_connections(network: nn.Module) -> None:
    """Put an UnfoldedLocal in the place of every locally connected layer, in place."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LocallyConnected2d):
            network.set_submodule(name, UnfoldedLocal(layer))
