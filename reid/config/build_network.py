"""Networks of a configuration and of checkpoints; part of `reid.config.build`."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from reid.config.keys import KEYS
from reid.config.loading import defaults, parse_config
from reid.errors import InputError
from reid.io.checkpoint import load_state_dict
from reid.io.json_yaml import flatten
from reid.model.backbones import Trunk, build_backbone
from reid.model.backbones import timm_trunk as timm_networks
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import Eigenlayer, build_eigenlayer, last_layer_vector_count
from reid.model.foreign import convert
from reid.model.necks import BNNeck, build_neck
from reid.model.network import ReidNetwork, is_whole_network, load_before_eigenlayer
from reid.model.normalization import normalize, synchronize_batch_norms
from reid.model.pooling import build_pooling, pooling_options
from reid.model.pretrained import load_pretrained

logger = logging.getLogger(__name__)


def pretrained(config: CfgNode) -> dict[str, Tensor] | None:
    """Load the published weights of MODEL.WEIGHTS.

    Args:
        config: Frozen configuration; reads MODEL.BACKBONE and MODEL.WEIGHTS.

    Returns:
        A state dict; None for a network from scratch.

    Raises:
        InputError: If the weights are missing or unreadable.
    """
    roots = [Path(os.environ["REID_WEIGHTS"])] if os.environ.get("REID_WEIGHTS") else []
    tensors = load_pretrained(config.MODEL.BACKBONE, config.MODEL.WEIGHTS, roots=roots)
    return None if tensors is None else dict(tensors)


def network(config: CfgNode, *, num_classes: int, weights: dict[str, Tensor] | None = None) -> ReidNetwork:
    """Compose the network from the section MODEL.

    Args:
        config: Frozen configuration; reads MODEL, and of INPUT the size and normalization for a network of timm.
        num_classes: Number of training identities.
        weights: State dict returned by `pretrained`, or None for a network from scratch. Of a whole network, everything
            before the Eigenlayer is loaded.

    Returns:
        The network, on the CPU.

    Raises:
        InputError: If parts do not fit each other or the weights do not fit.
    """
    model = config.MODEL
    published = None if is_whole_network(weights) else weights
    try:
        backbone = _backbone(config, published)
    except InputError as error:
        raise InputError(f"{error}{_conversion_advice(published, model.BACKBONE, model.WEIGHTS)}") from None
    # A network of timm that pools by itself leaves a single position.
    name = "average" if model.POOLING.NAME == timm_networks.OWN_POOLING else model.POOLING.NAME
    pooling = build_pooling(name, backbone, **_pooling_options(name, model.POOLING))
    pooled = pooling.width(backbone.out_channels)
    neck = build_neck(model.BACKBONE, pooled, fc512=model.NECK == "fc512", weights=published, source=model.WEIGHTS)
    eigenlayer = _eigenlayer(model.EIGENLAYER, neck.out_features, num_classes)
    classifier = None if model.EIGENLAYER.LAST else _classifier(model.CLASSIFIER, eigenlayer, num_classes)
    bnneck = BNNeck(neck.out_features) if model.NECK == "bnneck" else None
    composed = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier, model.DROPOUT, bnneck)
    if model.NORM.NAME == "sync_batch":
        synchronize_batch_norms(composed)
    if weights is not None and published is None:
        load_before_eigenlayer(composed, weights, source=model.WEIGHTS)
    return composed


def network_from_checkpoint(
    content: Mapping[str, Any], *, source: str, finite: bool = True
) -> tuple[ReidNetwork, CfgNode]:
    """Build the network of a checkpoint that has been read.

    Args:
        content: Content of the checkpoint.
        source: What error messages call the checkpoint.
        finite: Whether to refuse weights that are NaN or infinite.

    Returns:
        The network, on the CPU in evaluation mode, and the configuration in the checkpoint.

    Raises:
        InputError: If the weights do not fit the configuration, or are not finite.
    """
    config = parse_config(content["config"], source=f"the configuration in {source}")
    _check_size(config, content, source)
    model = network(config, num_classes=content["num_classes"])
    try:
        load_state_dict(model, content["model"], network="the configuration it carries", source=source, finite=finite)
    except InputError as error:
        raise InputError(f"{error}{_version_advice(config, content)}") from None
    return model.eval(), config


def library_versions(config: CfgNode) -> dict[str, str]:
    """Look up the versions of libraries that define the network, for its checkpoints.

    Args:
        config: Frozen configuration; reads MODEL.BACKBONE.

    Returns:
        "timm" and its version for a network of timm, else nothing.

    Raises:
        InputError: If timm is needed but missing.
    """
    return {"timm": timm_networks.installed_version()} if _is_of_timm(config) else {}


def structure(config: CfgNode) -> dict[str, Any]:
    """Select the keys of MODEL on which embeddings depend and that are not at their defaults.

    A key that a later version adds has a default under which earlier networks stay the same, and so does the result.

    Args:
        config: Frozen configuration; reads MODEL.

    Returns:
        Values by dotted key within MODEL.
    """
    plain = dict(flatten(defaults().MODEL))
    return {
        key: value for key, value in flatten(config.MODEL) if value != plain[key] and KEYS[f"MODEL.{key}"].structural
    }


def _is_of_timm(config: CfgNode) -> bool:
    return str(config.MODEL.BACKBONE).startswith(timm_networks.PREFIX)


def _backbone(config: CfgNode, weights: dict[str, Tensor] | None) -> Trunk:
    model = config.MODEL
    if not _is_of_timm(config):
        return build_backbone(
            model.BACKBONE,
            weights=weights,
            last_stride=model.LAST_STRIDE or None,
            stem=model.STEM,
            norm=model.NORM.NAME,
            norm_groups=model.NORM.GROUPS,
            source=model.WEIGHTS,
        )
    height, width = config.INPUT.SIZE
    trunk = timm_networks.timm_trunk(
        model.BACKBONE,
        weights=weights,
        image_size=(height, width),
        pooled=model.POOLING.NAME == timm_networks.OWN_POOLING,
        source=model.WEIGHTS,
    )
    normalize(trunk, model.NORM.NAME, groups=model.NORM.GROUPS, network=model.BACKBONE, pretrained=weights is not None)
    expected = timm_networks.pretrained_normalization(model.BACKBONE)
    if weights is not None and expected and expected != (tuple(config.INPUT.MEAN), tuple(config.INPUT.STD)):
        mean, std = map(list, expected)
        logger.warning("%s: timm's weights of it expect INPUT.MEAN %s and INPUT.STD %s", model.BACKBONE, mean, std)
    return trunk


def _version_advice(config: CfgNode, content: Mapping[str, Any]) -> str:
    """That another version of timm wrote a checkpoint; empty where it did not."""
    written, installed = content.get("timm"), library_versions(config).get("timm")
    return "" if written in (None, installed) else f"; timm {written} wrote it, and {installed} is installed"


def _conversion_advice(weights: dict[str, Tensor] | None, backbone: str, source: str) -> str:
    """What to do with weights that are no bare backbone but a whole network of another codebase; empty for others."""
    try:
        found = convert(weights or {}, source=source)
    except InputError:
        return ""
    if found.recognized.body.backbone != backbone:
        return ""
    command = f"svdnet convert {source} OUT.pth"
    return f"; it is a {found.architecture} of {found.family}: set MODEL.WEIGHTS to what `{command}` writes"


def _eigenlayer(settings: CfgNode, d_in: int, num_classes: int) -> Eigenlayer:
    k = last_layer_vector_count(d_in, settings.DIM, num_classes) if settings.LAST else settings.DIM
    return build_eigenlayer(
        d_in,
        k,
        bias=settings.BIAS,
        relu=settings.RELU,
        init_std=settings.INIT_STD,
        parametrization=settings.PARAMETRIZATION,
        orthogonal_map=settings.ORTHOGONAL_MAP,
    )


def _classifier(settings: CfgNode, eigenlayer: Eigenlayer, num_classes: int) -> nn.Linear:
    return build_classifier(
        settings.NAME, eigenlayer.out_features, num_classes, scale=settings.SCALE, margin=settings.MARGIN
    )


def _pooling_options(name: str, pooling: CfgNode) -> dict[str, Any]:
    """The keys of MODEL.POOLING that the chosen pooling has; the others are ignored."""
    return {option: pooling[option.upper()] for option in pooling_options(name)}


def _check_size(config: CfgNode, content: Mapping[str, Any], source: str) -> None:
    """Reject a checkpoint whose configuration describes a far larger network, before memory is allocated."""
    bare = config.clone()
    bare.defrost()
    # Setting up a parametrization reads the weight's values, and it has as many parameters as the plain weight.
    bare.MODEL.EIGENLAYER.PARAMETRIZATION = "none"
    held = sum(tensor.numel() for tensor in content["model"].values())
    classes = content["num_classes"]
    try:
        with torch.device("meta"):
            tensors = network(bare, num_classes=max(1, classes)).state_dict().values()
        claimed: float = sum(tensor.numel() for tensor in tensors)
    except (RuntimeError, OverflowError, TypeError):  # more than a tensor can hold
        claimed = math.inf
    if classes < 1 or claimed > 2 * held + 1_000_000:
        raise InputError(
            f"{source}: its configuration with {classes} classes describes a network of {claimed:,} "
            f"values, but the checkpoint holds {held:,}"
        )
