"""From a configuration to objects: the only place below `tools/` that reads a configuration.

The functions for data are in `reid.config.build_data`, those for networks in `reid.config.build_network`; all are
available from here, as `build.network(config, ...)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
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
from reid.config.build_network import library_versions, network, network_from_checkpoint, pretrained, structure
from reid.config.checks import parse_lr_factor
from reid.config.keys import STAGES
from reid.config.loading import load_config, parse_config
from reid.config.records import record_from
from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, load_state_dict
from reid.losses.objective import LossWeights, Objective
from reid.model.network import ReidNetwork
from reid.model.precision import autocast_dtype
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule

__all__ = [
    "Loaders",
    "config_from_overrides",
    "device",
    "evaluation_config",
    "library_versions",
    "load_trained",
    "loaders",
    "network",
    "network_from_checkpoint",
    "objective",
    "plan",
    "pool_loader",
    "preprocessing",
    "pretrained",
    "split",
    "structure",
    "test_loader",
    "train_loader",
    "use_threads",
    "whole_loader",
]


def config_from_overrides(overrides: Sequence[str], *, source: str) -> CfgNode:
    """Build a configuration from overrides of the defaults.

    Args:
        overrides: Alternating keys and values.
        source: What error messages call the overrides.

    Returns:
        The checked and frozen configuration.

    Raises:
        InputError: If `reid.config.load_config` raises it.
    """
    return parse_config("", overrides, source=source)


def evaluation_config(trained: CfgNode, path: Path | None, overrides: Sequence[str]) -> CfgNode:
    """Combine the configuration of a checkpoint with the dataset of another one.

    Images keep the size and normalization that the network was trained with, unless an override changes them. THREADS
    and MODEL.DEVICE are those of the overrides, not those of the training, perhaps on another machine.

    Args:
        trained: Configuration in the checkpoint.
        path: YAML file whose sections DATASETS and TEST replace those of `trained`; None to keep them.
        overrides: Alternating keys and values, which take precedence.

    Returns:
        The checked and frozen configuration.

    Raises:
        InputError: If `reid.config.load_config` raises it.
    """
    config = trained.clone()
    config.defrost()
    config.THREADS, config.MODEL.DEVICE = 0, "auto"
    if path:
        other = load_config(path)
        config.DATASETS, config.TEST = other.DATASETS.clone(), other.TEST.clone()
    return parse_config("", overrides, base=config)


def use_threads(config: CfgNode) -> None:
    """Set how many threads PyTorch uses, which decoding and engines follow.

    Args:
        config: Frozen configuration; reads THREADS, of which 0 changes nothing.
    """
    if config.THREADS:
        torch.set_num_threads(config.THREADS)


def objective(config: CfgNode, model: ReidNetwork, *, num_classes: int) -> Objective:
    """Build the training objective of a network.

    Args:
        config: Frozen configuration; reads LOSS, SAMPLER and SOLVER.LABEL_SMOOTHING.
        model: Network to train.
        num_classes: Number of training identities.

    Returns:
        The weighted sum of losses, on the CPU.

    Raises:
        InputError: If a loss needs a library that is not installed.
    """
    loss = config.LOSS
    d_in, k = model.eigenlayer.vectors.shape
    weights = record_from(
        loss,
        LossWeights,
        label_smoothing=config.SOLVER.LABEL_SMOOTHING,
        tuple_size=sampler(config).tuple_size,
        penalty_steps=tuple(zip(loss.PENALTY_STEPS, loss.PENALTY_FACTORS, strict=True)),
    )
    return Objective(weights, num_classes=num_classes, width={"input": d_in, "output": k}[loss.FEATURE])


def load_trained(config: CfgNode, model: ReidNetwork, objective: Objective) -> None:
    """Load STEP0.CHECKPOINT, a network that somebody has trained, Eigenlayer and classifier included.

    Args:
        config: Frozen configuration; reads STEP0.CHECKPOINT and MODEL.
        model: Network of the configuration, changed in place.
        objective: Its training objective, changed in place if the checkpoint was trained with the same losses.

    Raises:
        InputError: If the file is not a checkpoint of this project, or of a different network or number of identities.
    """
    path = Path(config.STEP0.CHECKPOINT).expanduser()
    content = load_checkpoint(path)
    theirs, ours = structure(parse_config(content["config"], source=f"the configuration in {path}")), structure(config)
    differing = [f"MODEL.{key}" for key in sorted(theirs.keys() | ours.keys()) if theirs.get(key) != ours.get(key)]
    if differing:
        raise InputError(
            f"STEP0.CHECKPOINT {path}: the network there differs from this configuration in {', '.join(differing)}"
        )
    classes = 0 if model.classifier is None else model.classifier.out_features
    if classes and classes != content["num_classes"]:
        raise InputError(
            f"STEP0.CHECKPOINT {path}: was trained with {content['num_classes']} identities, and this training set has "
            f"{classes}; use the same data, or MODEL.WEIGHTS to take everything before the Eigenlayer"
        )
    load_state_dict(model, content["model"], network="this configuration", source=str(path))
    losses = content.get("objective", {})
    if losses.keys() == objective.state_dict().keys():
        load_state_dict(objective, losses, network="the losses of this run", source=str(path))


def plan(config: CfgNode, model: ReidNetwork | None = None) -> Plan:
    """Collect the settings of a training run.

    Args:
        config: Frozen configuration; reads the stages, SOLVER, RRI, SEED and MODEL.DEVICE.
        model: The network, by which SOLVER.PRECISION auto may choose.

    Returns:
        The schedules of the stages, the solver, and the settings of the iteration.

    Raises:
        InputError: If the precision is not available on the device.
    """
    on = device(config)
    solver = record_from(
        config.SOLVER,
        Solver,
        dtype=autocast_dtype(config.SOLVER.PRECISION, on, trained=model),
        seed=config.SEED,
        fused={"auto": None, "always": True, "never": False}[config.SOLVER.FUSED],
    )
    stages = {name.lower(): _schedule(config[name]) for name in STAGES}
    return record_from(config.RRI, Plan, solver=solver, skip_step0=bool(config.STEP0.CHECKPOINT), **stages)


def _schedule(stage: CfgNode) -> Schedule:
    factors = tuple(pair for text in stage.LR_FACTORS if (pair := parse_lr_factor(text)))
    return record_from(stage, Schedule, lr_factors=factors)
