"""Normalizations that replace the batch normalization of a backbone, by name."""

from __future__ import annotations

import logging

from torch import nn

from reid.errors import InputError, unknown_name
from reid.model.normalization.activations import group_norms, instance_norms
from reid.model.normalization.batch_norms import batch_norms, has_activation
from reid.model.normalization.batch_norms import synchronize_batch_norms as synchronize_batch_norms
from reid.model.normalization.cosine import CosineConv2d as CosineConv2d
from reid.model.normalization.ibn import IBN as IBN
from reid.model.normalization.ibn import ibn_a, ibn_b
from reid.model.normalization.weights import cosine_convolutions, weight_norms

logger = logging.getLogger(__name__)

NORMS = ("batch", "sync_batch", "instance", "layer", "group", "weight", "cosine", "ibn_a", "ibn_b")


def normalize(backbone: nn.Module, name: str, *, groups: int = 32, network: str, pretrained: bool) -> nn.Module:
    """Replace every BatchNorm2d of a backbone, in place.

    Args:
        backbone: Backbone with batch normalization.
        name: One of `NORMS`; "batch" changes nothing.
        groups: Number of groups for "group".
        network: Name of the backbone in messages.
        pretrained: Whether the backbone has pretrained weights; a warning then says how much of them is lost.

    Returns:
        The backbone with replaced normalizations.

    Raises:
        InputError: If the name is unknown, the backbone has no batch normalization, the groups do not divide the
            channels, the normalizations include activations, or IBN is requested for anything but a ResNet.
    """
    if name not in NORMS:
        raise unknown_name("normalization", name, NORMS)
    if name == "batch":
        return backbone
    if not batch_norms(backbone):
        raise InputError(f"{network} has no batch normalization that {name} could replace; set MODEL.NORM.NAME batch")
    if name == "sync_batch":
        return synchronize_batch_norms(backbone)
    if any(map(has_activation, batch_norms(backbone).values())):
        raise InputError(
            f"{network}: its normalizations include the activations, which {name} would drop; set MODEL.NORM.NAME batch"
        )
    lost = {
        "instance": lambda: instance_norms(backbone),
        "layer": lambda: group_norms(backbone, 1, network),
        "group": lambda: group_norms(backbone, groups, network),
        "weight": lambda: weight_norms(backbone, network),
        "cosine": lambda: cosine_convolutions(backbone, network),
        "ibn_a": lambda: ibn_a(backbone, network),
        "ibn_b": lambda: ibn_b(backbone, network),
    }[name]()
    if pretrained:
        logger.warning("%s: normalization %s %s", network, name, lost)
    return backbone
