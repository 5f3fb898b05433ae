"""From a configuration to objects: the only room below `tools/` that reads one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from reid.config.build_data import (
    Loaders,
    device,
    loaders,
    pool_loader,
    preprocessing,
    sampler,
    split,
    test_loader,
    train_loader,
    whole_loader,
)
from reid.config.checks import rate_factor
from reid.config.keys import KEYS
from reid.config.loading import defaults, load_config, parse_config
from reid.config.records import record_from
from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, load_state_dict
from reid.io.json_yaml import flatten
from reid.losses.objective import LossWeights, Objective
from reid.model.backbones import build_backbone
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import Eigenlayer, build_eigenlayer, last_layer_vector_count
from reid.model.necks import BNNeck, build_neck
from reid.model.network import ReidNetwork, is_whole_network, load_before_eigenlayer
from reid.model.pooling import build_pooling, pooling_options
from reid.model.precision import autocast_dtype
from reid.model.pretrained import load_pretrained
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule

__all__ = [
    "Loaders",
    "config_of",
    "device",
    "evaluation_config",
    "load_network",
    "loaders",
    "network",
    "network_of",
    "objective",
    "plan",
    "pool_loader",
    "preprocessing",
    "pretrained",
    "sampler",
    "split",
    "structure",
    "test_loader",
    "tested_feature",
    "train_loader",
    "whole_loader",
]


def pretrained(config: CfgNode) -> dict[str, Tensor] | None:
    """The published weights of MODEL.WEIGHTS, or None for a network from scratch."""
    roots = [Path(os.environ["REID_WEIGHTS"])] if os.environ.get("REID_WEIGHTS") else []
    tensors = load_pretrained(config.MODEL.BACKBONE, config.MODEL.WEIGHTS, roots=roots)
    return None if tensors is None else dict(tensors)


def network(config: CfgNode, *, num_classes: int, weights: dict[str, Tensor] | None = None) -> ReidNetwork:
    """Compose the network from the section MODEL.

    Args:
        config: the configuration.
        num_classes: number of training identities.
        weights: state dict returned by `pretrained`, or None for a network from scratch. Of a whole network, everything
            before the Eigenlayer is loaded.

    Returns:
        The network, on the CPU.

    Raises:
        InputError: if parts do not fit each other or the weights do not fit.
    """
    model = config.MODEL
    published = None if is_whole_network(weights) else weights
    backbone = build_backbone(
        model.BACKBONE,
        weights=published,
        last_stride=model.LAST_STRIDE or None,
        stem=model.STEM,
        norm=model.NORM.NAME,
        norm_groups=model.NORM.GROUPS,
        source=model.WEIGHTS,
    )
    pooling = build_pooling(model.POOLING.NAME, backbone, **_pooling_options(model.POOLING))
    pooled = pooling.width(backbone.out_channels)
    neck = build_neck(model.BACKBONE, pooled, fc512=model.NECK == "fc512", weights=published, source=model.WEIGHTS)
    eigenlayer = _eigenlayer(model.EIGENLAYER, neck.out_features, num_classes)
    classifier = None if model.EIGENLAYER.LAST else _classifier(model.CLASSIFIER, eigenlayer, num_classes)
    bnneck = BNNeck(neck.out_features) if model.NECK == "bnneck" else None
    composed = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier, model.DROPOUT, bnneck)
    if model.NORM.NAME == "sync_batch":
        nn.SyncBatchNorm.convert_sync_batchnorm(composed)
    if weights is not None and published is None:
        load_before_eigenlayer(composed, weights, source=model.WEIGHTS)
    return composed


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


def _pooling_options(pooling: CfgNode) -> dict[str, Any]:
    """The keys of MODEL.POOLING that the chosen pooling has; the others are ignored."""
    return {option: pooling[option.upper()] for option in pooling_options(pooling.NAME)}


def load_network(path: Path) -> tuple[ReidNetwork, CfgNode]:
    """The network of a checkpoint of ours, on the CPU in evaluation mode, and the configuration it carries."""
    return network_of(load_checkpoint(path), source=str(path))


def network_of(content: Mapping[str, Any], *, source: str) -> tuple[ReidNetwork, CfgNode]:
    """`load_network` of the content of a checkpoint; source: what errors call it."""
    config = parse_config(content["config"], source=f"the configuration in {source}")
    _check_size(config, content, source)
    model = network(config, num_classes=content["num_classes"])
    load_state_dict(model, content["model"], network="the configuration it carries", source=source)
    return model.eval(), config


def config_of(pairs: Sequence[str], *, source: str) -> CfgNode:
    """The configuration of KEY VALUE pairs, all else at its default."""
    return parse_config("", pairs, source=source)


def _check_size(config: CfgNode, content: Mapping[str, Any], source: str) -> None:
    """Raise InputError for a checkpoint whose configuration claims a far larger network, before memory is taken."""
    bare = config.clone()
    bare.defrost()
    # Setting up a parametrization reads the weight's values, and it has as many parameters as the plain weight.
    bare.MODEL.EIGENLAYER.PARAMETRIZATION = "none"
    held = sum(tensor.numel() for tensor in content["model"].values())
    try:
        with torch.device("meta"):
            tensors = network(bare, num_classes=content["num_classes"]).state_dict().values()
        claimed: float = sum(tensor.numel() for tensor in tensors)
    except (RuntimeError, OverflowError, TypeError):  # more than a tensor can have
        claimed = math.inf
    if content["num_classes"] < 1 or claimed > 2 * held + 1_000_000:
        raise InputError(
            f"{source}: its configuration with {content['num_classes']} classes describes a network of {claimed:,} "
            f"numbers, and it holds {held:,}"
        )


def tested_feature(config: CfgNode) -> str:
    """The Eigenlayer's "input" or "output", whichever TEST.FEATURE says."""
    return str(config.TEST.FEATURE)


def structure(config: CfgNode) -> dict[str, Any]:
    """The keys of MODEL on which an embedding depends, where they are not at their defaults.

    Keys that a later version adds have defaults under which a network is what it was, so this stays the same.
    """
    plain = dict(flatten(defaults().MODEL))
    return {
        key: value for key, value in flatten(config.MODEL) if value != plain[key] and KEYS[f"MODEL.{key}"].structural
    }


def evaluation_config(trained: CfgNode, path: Path | None, overrides: Sequence[str]) -> CfgNode:
    """The configuration a checkpoint carries, with DATASETS and TEST of another file and `KEY VALUE` pairs over it.

    Images keep the size and normalization that the network was trained with, unless a pair says otherwise.
    """
    config = trained.clone()
    config.defrost()
    if path:
        other = load_config(path)
        config.DATASETS, config.TEST = other.DATASETS.clone(), other.TEST.clone()
    return parse_config("", overrides, base=config)


def objective(config: CfgNode, model: ReidNetwork, *, num_classes: int) -> Objective:
    """What a training of `model` minimizes. Raises InputError where a loss needs a library that is missing."""
    loss = config.LOSS
    d_in, k = model.eigenlayer.vectors.shape
    weights = record_from(
        loss,
        LossWeights,
        label_smoothing=config.SOLVER.LABEL_SMOOTHING,
        tuple_size=sampler(config).tuple_size,
        penalty_steps=tuple(zip(loss.PENALTY_STEPS, loss.PENALTY_FACTORS, strict=True)),
    )
    return Objective(weights, classes=num_classes, width={"input": d_in, "output": k}[loss.FEATURE])


def plan(config: CfgNode) -> Plan:
    """Collect the settings of a training run.

    Args:
        config: The configuration.

    Returns:
        The schedules of the stages, the solver, and how the iteration goes.

    Raises:
        InputError: If the precision is not available on the device.
    """
    on = device(config)
    solver = record_from(
        config.SOLVER,
        Solver,
        dtype=autocast_dtype(config.SOLVER.PRECISION, on),
        seed=config.SEED,
        fused={"auto": on.type == "cuda", "always": True, "never": False}[config.SOLVER.FUSED],
    )
    stages = {name: _schedule(config[name.upper()]) for name in ("step0", "restraint", "relaxation")}
    return record_from(config.RRI, Plan, solver=solver, **stages)


def _schedule(stage: CfgNode) -> Schedule:
    factors = tuple(pair for text in stage.LR_FACTORS if (pair := rate_factor(text)))
    return record_from(stage, Schedule, lr_factors=factors)
