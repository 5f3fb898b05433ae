"""Normalizations of activations that are independent of the batch: the same in training and in evaluation."""

from __future__ import annotations

import math

from torch import Tensor, nn

from reid.errors import InputError, check_count
from reid.model.normalization.batch_norms import batch_norms

_LOST = "discards the pretrained statistics, scale and shift of {} batch normalizations and starts anew"


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalization over (H, W) per sample and channel (Ulyanov et al. 2016), with scale and shift.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize maps.

        Args:
            maps: (B, C, H, W) floating.

        Returns:
            The normalized maps, same shape and dtype.

        Raises:
            InputError: If the maps have a single position, since they would become zero.
        """
        if maps.shape[2:].numel() < 2:
            raise InputError(
                "instance normalization of a 1 x 1 map leaves only zeros; use larger images, a last stride of 1 or "
                "another MODEL.NORM.NAME"
            )
        return super().forward(maps)


def instance_norms(backbone: nn.Module) -> str:
    """Replace every batch normalization by `InstanceNorm`, in place.

    Args:
        backbone: Backbone to change.

    Returns:
        What this discards, for the log.
    """
    norms = batch_norms(backbone)
    for name, norm in norms.items():
        backbone.set_submodule(name, InstanceNorm(norm.num_features))
    return _LOST.format(len(norms))


def group_norms(backbone: nn.Module, groups: int, network: str) -> str:
    """Replace every batch normalization by one over (C / groups, H, W) per sample and group, in place.

    Group normalization (Wu and He 2018) has a scale and shift per channel. With one group it is layer normalization
    (Ba et al. 2016), over (C, H, W).

    Args:
        backbone: Backbone to change.
        groups: Number of groups.
        network: Name of the backbone in error messages.

    Returns:
        What this discards, for the log.

    Raises:
        InputError: If `groups` does not divide the channels of every layer.
    """
    check_count("the number of groups", groups)
    norms = batch_norms(backbone)
    for name, norm in norms.items():
        if norm.num_features % groups:
            divisor = math.gcd(*(other.num_features for other in norms.values()))
            raise InputError(
                f"{network}: {groups} groups do not divide the {norm.num_features} channels of {name}; set "
                f"MODEL.NORM.GROUPS to a divisor of {divisor}, which divides the channels of every layer"
            )
    for name, norm in norms.items():
        backbone.set_submodule(name, nn.GroupNorm(groups, norm.num_features))
    return _LOST.format(len(norms))
