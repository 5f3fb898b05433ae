"""What stands where a backbone has batch normalization, by name, and the cosine as a layer and as the classifier."""

from __future__ import annotations

import logging

from torch import nn

from reid.errors import InputError, unknown_name
from reid.model.normalization.activations import group_norms, instance_norms, layer_norms
from reid.model.normalization.batch_norms import batch_norms
from reid.model.normalization.cosine import CosineConv2d as CosineConv2d
from reid.model.normalization.ibn import IBN as IBN
from reid.model.normalization.ibn import ibn_a, ibn_b
from reid.model.normalization.weights import cosine_convolutions, weight_norms

logger = logging.getLogger(__name__)

NORMS = ("batch", "sync_batch", "instance", "layer", "group", "weight", "cosine", "ibn_a", "ibn_b")


def normalize(trunk: nn.Module, name: str, *, groups: int = 32, network: str, pretrained: bool) -> nn.Module:
    """Put the normalization `name` of NORMS where `trunk` has BatchNorm2d, in place; returns the trunk.

    "batch" leaves it as it is. groups: of "group". network: what messages call it. pretrained: whether the trunk holds
    a fit, of which the log then says how much is lost. Raises InputError where there is nothing to replace, for groups
    that don't divide the channels, and for IBN on anything but a ResNet.
    """
    if name not in NORMS:
        raise unknown_name("normalization", name, NORMS)
    if name == "batch":
        return trunk
    if not batch_norms(trunk):
        raise InputError(f"{network} has no batch normalization that {name} could replace; leave MODEL.NORM.NAME batch")
    if name == "sync_batch":
        return nn.SyncBatchNorm.convert_sync_batchnorm(trunk)
    lost = {
        "instance": lambda: instance_norms(trunk),
        "layer": lambda: layer_norms(trunk),
        "group": lambda: group_norms(trunk, groups, network),
        "weight": lambda: weight_norms(trunk, network),
        "cosine": lambda: cosine_convolutions(trunk, network),
        "ibn_a": lambda: ibn_a(trunk, network),
        "ibn_b": lambda: ibn_b(trunk, network),
    }[name]()
    if pretrained:
        logger.warning("%s: normalization %s %s", network, name, lost)
    return trunk
