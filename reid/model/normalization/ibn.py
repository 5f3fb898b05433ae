"""IBN-Net: Pan, Luo, Shi, Tang, ECCV 2018.

"Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net". The names of the tensors are those of the
published weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.model.normalization.activations import InstanceNorm

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck


class IBN(nn.Module):
    """Instance normalization of the first half of the channels, batch normalization of the rest: (B, C, H, W).

    Args:
        norm: Batch normalization whose statistics, scale and shift the rest keeps.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        channels = norm.num_features
        self.instances = channels // 2
        self.IN = InstanceNorm(self.instances)
        self.BN = nn.BatchNorm2d(channels - self.instances, eps=norm.eps, momentum=norm.momentum)
        kept = {name: value[self.instances :] if value.ndim else value for name, value in norm.state_dict().items()}
        self.BN.load_state_dict(kept)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize maps.

        Args:
            maps: (B, C, H, W) floating.

        Returns:
            The normalized maps, same shape and dtype.
        """
        return torch.cat((self.IN(maps[:, : self.instances]), self.BN(maps[:, self.instances :])), dim=1)


class InstanceNormedBlock(nn.Module):
    """A residual block whose sum is instance-normalized before the last ReLU.

    Args:
        block: Block whose layers are used.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.downsample = block.downsample
        self.branches = 3 if hasattr(block, "conv3") else 2  # a bottleneck or a basic block
        self.IN = InstanceNorm(block.get_submodule(f"bn{self.branches}").num_features)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute the block.

        Args:
            maps: (B, C, H, W) floating.

        Returns:
            The output maps of the block.
        """
        out = maps
        for number in range(1, self.branches + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            if number < self.branches:
                out = torch.relu(out)
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return torch.relu(self.IN(out + shortcut))


def ibn_a(backbone: nn.Module, network: str) -> str:
    """Replace the normalization after conv1 by IBN in every block of layer1 to layer3, in place.

    Args:
        backbone: ResNet to change.
        network: Its name in error messages.

    Returns:
        What this discards, for the log.

    Raises:
        InputError: If the backbone is not a ResNet.
    """
    _check(backbone, network)
    blocks = [block for name in ("layer1", "layer2", "layer3") for block in backbone.get_submodule(name).children()]
    for block in blocks:
        norm = block.bn1
        assert isinstance(norm, nn.BatchNorm2d)
        block.bn1 = IBN(norm)
    return (
        f"discards the pretrained statistics, scale and shift of half the channels of {len(blocks)} batch "
        "normalizations, now instance-normalized from the start; the other half is kept"
    )


def ibn_b(backbone: nn.Module, network: str) -> str:
    """Use instance normalization in the stem and after the sum in the last block of layer1 and of layer2, in place.

    Args:
        backbone: ResNet to change.
        network: Its name in error messages.

    Returns:
        What this discards, for the log.

    Raises:
        InputError: If the backbone is not a ResNet.
    """
    _check(backbone, network)
    stem = backbone.bn1
    assert isinstance(stem, nn.BatchNorm2d)
    backbone.bn1 = InstanceNorm(stem.num_features)
    for name in ("layer1", "layer2"):
        stage = backbone.get_submodule(name)
        assert isinstance(stage, nn.Sequential)
        stage[-1] = InstanceNormedBlock(stage[-1])
    return (
        "discards the pretrained statistics, scale and shift of 1 batch normalization, the stem's, and adds 2 instance "
        "normalizations that start anew"
    )


def has_ibn_names(names: Iterable[str]) -> bool:
    """Whether tensors are those of a published IBN-Net rather than of a plain ResNet.

    Args:
        names: Names of the tensors.

    Returns:
        True for an IBN-Net.
    """
    return any("IN" in name.split(".") for name in names)


def _check(backbone: nn.Module, network: str) -> None:
    if not all(hasattr(backbone, name) for name in ("bn1", "layer1", "layer2", "layer3")):
        raise InputError(f"IBN-Net is defined for ResNets, not for {network}; use another MODEL.NORM.NAME")
