"""Normalizations of activations that know no batch: the same in training and in evaluation."""

from __future__ import annotations

import math

from torch import Tensor, nn

from reid.errors import InputError
from reid.model.normalization.batch_norms import batch_norms

AFRESH = "discards the pretrained statistics, scale and shift of {} batch normalizations and begins anew"


class InstanceNorm(nn.InstanceNorm2d):
    """Over (H, W), for each sample and channel (Ulyanov et al. 2016), with scale and shift.

    Raises InputError for maps of a single place, which it would turn into zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[2:].numel() < 2:
            raise InputError(
                "instance normalization of a map of 1 x 1 leaves nothing of it; give larger images, or a last stride "
                "of 1, or take another MODEL.NORM.NAME"
            )
        return super().forward(maps)


def instance_norms(trunk: nn.Module) -> str:
    """InstanceNorm for every batch normalization; says what that discards."""
    norms = batch_norms(trunk)
    for name, norm in norms.items():
        trunk.set_submodule(name, InstanceNorm(norm.num_features))
    return AFRESH.format(len(norms))


def layer_norms(trunk: nn.Module) -> str:
    """Over (C, H, W), for each sample (Ba et al. 2016), with a scale and shift a channel: one group of all channels."""
    return group_norms(trunk, 1, "")


def group_norms(trunk: nn.Module, groups: int, network: str) -> str:
    """Over (C / groups, H, W), for each sample and group (Wu and He 2018), with a scale and shift a channel.

    Raises InputError where `groups` does not divide the channels of some layer.
    """
    norms = batch_norms(trunk)
    for name, norm in norms.items():
        if norm.num_features % groups:
            most = math.gcd(*(other.num_features for other in norms.values()))
            raise InputError(
                f"{network}: {groups} groups do not divide the {norm.num_features} channels of {name}; set "
                f"MODEL.NORM.GROUPS to a divisor of {most}, which divides the channels of every layer"
            )
    for name, norm in norms.items():
        trunk.set_submodule(name, nn.GroupNorm(groups, norm.num_features))
    return AFRESH.format(len(norms))
