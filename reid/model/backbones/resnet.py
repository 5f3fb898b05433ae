"""The convolutional part of a ResNet (He et al. 2016), as torchvision builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reid.errors import InputError, unknown_name
from reid.io.checkpoint import load_state_dict

# torchvision is imported by the functions that need it: it takes a second.
if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet


class ResNetTrunk(nn.Module):
    """A ResNet up to its last map: (B, 3, H, W) -> (B, out_channels, H/32, W/32), or H/16, W/16 at last stride 1.

    The tensors keep torchvision's names. With `stem_relu` False there is no ReLU before the maximum pooling.

    Args:
        resnet: Network whose layers are used.
        last_stride: Stride of layer4.
    """

    def __init__(self, resnet: ResNet, last_stride: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        self.out_channels = int(resnet.fc.in_features)
        self.stem_relu = True
        _set_stride(self.layer4[0], last_stride)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            (B, out_channels, h, w).
        """
        maps = self.bn1(self.conv1(images))
        maps = self.maxpool(self.relu(maps) if self.stem_relu else maps)
        return self.layer4(self.layer3(self.layer2(self.layer1(maps))))


STEMS = ("standard", "no_relu", "ceil")


def change_stem(trunk: nn.Module, stem: str, network: str) -> None:
    """Change the stem of a ResNet, in place; no tensor changes.

    Args:
        trunk: ResNet backbone to change; for "standard" any backbone.
        stem: One of `STEMS`. "standard" is torchvision's; "no_relu" has no ReLU before the maximum pooling, as in
            reid-strong-baseline; "ceil" has a maximum pooling without padding whose size is rounded up, as in
            fast-reid.
        network: Name of the backbone in error messages.

    Raises:
        InputError: If the stem is unknown, or is not "standard" for a backbone that is not a ResNet.
    """
    if stem not in STEMS:
        raise unknown_name("stem", stem, STEMS)
    if stem == "standard":
        return
    if not isinstance(trunk, ResNetTrunk):
        raise InputError(f"the stem {stem!r} is for ResNets, not for {network}; set MODEL.STEM standard")
    if stem == "no_relu":
        trunk.stem_relu = False
    else:
        trunk.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)


def resnet_trunk(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    source: str = "the given weights",
) -> ResNetTrunk:
    """Build the backbone.

    Args:
        name: Name of the ResNet in torchvision.
        weights: State dict of the whole ResNet, its fc layer unused; None to start from scratch.
        last_stride: 1 or 2; None for the network's own, 2.
        source: Name of the weights in error messages.

    Returns:
        Backbone with the given weights or new ones.

    Raises:
        InputError: If the weights do not fit or for another last stride.
    """
    from torchvision.models import get_model

    if last_stride not in (None, 1, 2):
        raise InputError(f"the last stride of {name} is 1 or 2, not {last_stride}")
    trunk = ResNetTrunk(get_model(name, weights=None), last_stride or 2)
    if weights is not None:
        load_state_dict(trunk, weights, network=name, source=source, unused=("fc.weight", "fc.bias"))
    return trunk


def _set_stride(block: nn.Module, stride: int) -> None:
    """Set the stride of a stage: in one 3x3 convolution of its first block and in the shortcut."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    if isinstance(block, Bottleneck):
        block.conv2.stride = (stride, stride)
    elif isinstance(block, BasicBlock):
        block.conv1.stride = (stride, stride)
    else:
        raise TypeError(f"{type(block).__name__} is not a block of a ResNet")
    shortcut = block.downsample[0] if block.downsample is not None else None
    if not isinstance(shortcut, nn.Conv2d):
        raise TypeError("the last stage of a ResNet begins with a shortcut convolution")
    shortcut.stride = (stride, stride)
