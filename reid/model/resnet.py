"""The convolutional trunk of a ResNet (He et al. 2016), as torchvision builds it."""

from __future__ import annotations

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from reid.checkpoint import load_strictly
from reid.errors import InputError


class ResNetTrunk(nn.Module):
    """A ResNet up to its last map: (B, 3, H, W) -> (B, out_channels, H/32, W/32), or H/16, W/16 at last stride 1.

    The tensors keep torchvision's names. `last_stride` is the stride of layer4.
    """

    def __init__(self, resnet: ResNet, last_stride: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        self.out_channels = int(resnet.fc.in_features)
        _set_stride(self.layer4[0], last_stride)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(maps))))


def _set_stride(block: nn.Module, stride: int) -> None:
    """The stride of a stage sits in one 3x3 convolution of its first block and in the shortcut beside it."""
    if isinstance(block, Bottleneck):
        block.conv2.stride = (stride, stride)
    elif isinstance(block, BasicBlock):
        block.conv1.stride = (stride, stride)
    else:
        raise TypeError(f"{type(block).__name__} is no block of a ResNet")
    shortcut = block.downsample[0] if block.downsample is not None else None
    if not isinstance(shortcut, nn.Conv2d):
        raise TypeError("the last stage of a ResNet begins with a shortcut convolution")
    shortcut.stride = (stride, stride)


def resnet_trunk(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    source: str = "the given weights",
) -> ResNetTrunk:
    """The trunk of torchvision's ResNet `name`; `weights` is the state dict of the whole ResNet, its fc left unused.

    last_stride: 1 or 2; None is the network's own, 2. Raises InputError for another one or where weights do not fit.
    """
    if last_stride not in (None, 1, 2):
        raise InputError(f"the last stride of {name} is 1 or 2, not {last_stride}")
    trunk = ResNetTrunk(torchvision.models.get_model(name, weights=None), last_stride or 2)
    if weights is not None:
        load_strictly(trunk, weights, network=name, source=source, unused=("fc.weight", "fc.bias"))
    return trunk
