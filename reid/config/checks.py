"""Checks of a configuration: single values against their declaration, and rules on several keys at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from yacs.config import CfgNode

from reid.config.declaration import Key
from reid.config.keys import KEYS, STAGES
from reid.model.backbones import INPUT_SIZES
from reid.model.backbones.timm_trunk import OWN_POOLING, PREFIX


def find_errors(config: CfgNode) -> Iterator[str]:
    """Find values out of range and combinations that cannot work.

    Args:
        config: Configuration with every key, each value of the type of its default.

    Yields:
        One message per error.
    """
    for name, key in KEYS.items():
        yield from _check_value(name, get_value(config, name), key)
    for check in (_check_stages, _check_input, _check_backbone, _check_pooling, _check_eigenlayer, _check_losses):
        yield from check(config)
    if not config.MODEL.WEIGHTS or not config.OUTPUT_DIR:
        yield "MODEL.WEIGHTS and OUTPUT_DIR must not be empty"


def get_value(config: CfgNode, key: str) -> Any:
    """Look up a dotted key.

    Args:
        config: Configuration or section.
        key: Dotted name, such as "MODEL.POOLING.NAME".

    Returns:
        The value of the key.
    """
    for part in key.split("."):
        config = config[part]
    return config


def suggestion(near: Sequence[str]) -> str:
    """Format near names for the end of an error message.

    Args:
        near: Names that resemble the given one, may be empty.

    Returns:
        " (did you mean A or B?)", or "" without names.
    """
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def parse_lr_factor(text: str) -> tuple[str, float] | None:
    """Parse an entry of LR_FACTORS.

    Args:
        text: Such as "neck.fc6=0.5".

    Returns:
        Prefix of parameter names and learning rate factor; None if the text has a different form or the factor is not
        above 0.
    """
    name, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        return None
    return (name.strip(), value) if name.strip() and 0 < value < math.inf else None


def _check_value(name: str, value: Any, key: Key) -> Iterator[str]:
    if key.choices:
        for choice in value.split(key.separator) if key.separator else [value]:
            if choice not in key.choices and not (key.prefix and choice.startswith(key.prefix)):
                near = difflib.get_close_matches(choice, key.choices, n=3, cutoff=0.4)
                yield f"{name} {choice!r} must be one of {', '.join(key.values)}{suggestion(near)}"
    elif isinstance(value, int | float) and not (key.low <= value <= key.high and value > key.above):
        yield f"{name} {value} must be {key.limits}"


def _check_stages(c: CfgNode) -> Iterator[str]:
    for name in STAGES:
        stage = c[name]
        if not stage.LR or min(stage.LR) <= 0:
            yield f"{name}.LR {stage.LR} must be positive learning rates"
        if any(not 0 < m < 1 for m in stage.MILESTONES) or sorted(stage.MILESTONES) != stage.MILESTONES:
            yield f"{name}.MILESTONES {stage.MILESTONES} must be increasing fractions between 0 and 1"
        for text in stage.LR_FACTORS:
            if parse_lr_factor(text) is None:
                yield f"{name}.LR_FACTORS {text!r} must be a name and a factor above 0, such as neck.fc6=0.5"
        if stage.WARMUP_EPOCHS > stage.EPOCHS:
            yield f"{name}.WARMUP_EPOCHS {stage.WARMUP_EPOCHS} must not exceed EPOCHS"
    if len(c.STEP0.LR) != 1:
        yield f"STEP0.LR {c.STEP0.LR} must be one learning rate, since Step 0 has no rounds"


def _check_input(c: CfgNode) -> Iterator[str]:
    if len(c.INPUT.SIZE) != 2 or min(c.INPUT.SIZE) < 16 or max(c.INPUT.SIZE) > 1024:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be height and width, 16 to 1024 pixels each"
    if len(c.INPUT.MEAN) != 3 or len(c.INPUT.STD) != 3 or min(c.INPUT.STD) <= 0:
        yield "INPUT.MEAN and INPUT.STD must be three numbers each, STD above 0"
    if c.INPUT.CACHE == "off" and c.INPUT.DEVICE_CACHE == "on":
        yield "INPUT.DEVICE_CACHE on: requires INPUT.CACHE on; set INPUT.DEVICE_CACHE auto"


def _check_backbone(c: CfgNode) -> Iterator[str]:
    backbone, norm, frozen = c.MODEL.BACKBONE, c.MODEL.NORM.NAME, c.SOLVER.NORM_STATISTICS == "frozen"
    size = INPUT_SIZES.get(backbone)
    if size and list(size) != c.INPUT.SIZE:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be {list(size)} for {backbone}"
    if not backbone.startswith("resnet"):
        if c.MODEL.LAST_STRIDE:
            yield f"MODEL.LAST_STRIDE {c.MODEL.LAST_STRIDE}: only for ResNets; set it to 0 for {backbone}"
        if c.MODEL.STEM != "standard":
            yield f"MODEL.STEM {c.MODEL.STEM}: only for ResNets; set it to standard for {backbone}"
        if c.MODEL.NECK == "fc512":
            yield f"MODEL.NECK fc512: only for ResNets, not for {backbone}"
        if norm.startswith("ibn_"):
            yield f"MODEL.NORM.NAME {norm}: only for ResNets, not for {backbone}"
    if norm != "batch" and backbone in ("caffenet", "deepface"):
        yield f"MODEL.NORM.NAME {norm}: {backbone} has no batch normalization to replace; set MODEL.NORM.NAME batch"
    if frozen and c.MODEL.NECK in ("bnneck", "fc512"):
        yield f"SOLVER.NORM_STATISTICS frozen: a new {c.MODEL.NECK} has no statistics to keep; set MODEL.NECK none"
    if frozen and norm not in ("batch", "sync_batch", "ibn_a", "ibn_b"):
        yield f"SOLVER.NORM_STATISTICS frozen: MODEL.NORM.NAME {norm} has no BatchNorm statistics to keep"
    if frozen and c.MODEL.WEIGHTS == "none":
        yield (
            "SOLVER.NORM_STATISTICS frozen: keeps the BatchNorm statistics of a pretrained network, and MODEL.WEIGHTS "
            "none has no such statistics; give weights, or set SOLVER.NORM_STATISTICS running"
        )


def _check_pooling(c: CfgNode) -> Iterator[str]:
    pooling = c.MODEL.POOLING
    if pooling.NAME == "flatten" and c.MODEL.BACKBONE not in INPUT_SIZES:
        yield (
            f"MODEL.POOLING.NAME flatten: requires feature maps of a fixed size ({', '.join(INPUT_SIZES)}), not those "
            f"of {c.MODEL.BACKBONE}"
        )
    if pooling.NAME == OWN_POOLING and not c.MODEL.BACKBONE.startswith(PREFIX):
        yield f"MODEL.POOLING.NAME {OWN_POOLING}: only for networks of timm ({PREFIX}NAME), not for {c.MODEL.BACKBONE}"
    if pooling.NAME == "flatten" and pooling.L2:
        yield "MODEL.POOLING.L2: not for flattening; set it to False"
    clusters = pooling.CLUSTERS + (pooling.GHOSTS if pooling.NAME == "ghost_vlad" else 0)
    if pooling.NAME.endswith("vlad") and pooling.INIT != "random" and clusters > pooling.DESCRIPTORS:
        yield f"MODEL.POOLING.DESCRIPTORS {pooling.DESCRIPTORS} must be at least the {clusters} clusters of k-means"


def _check_eigenlayer(c: CfgNode) -> Iterator[str]:
    eigenlayer, rri, classifier = c.MODEL.EIGENLAYER, c.RRI, c.MODEL.CLASSIFIER.NAME
    if rri.ROTATE_CLASSIFIER and (eigenlayer.BIAS or eigenlayer.RELU or eigenlayer.LAST):
        yield "RRI.ROTATE_CLASSIFIER needs a plain Eigenlayer before a classifier (BIAS, RELU and LAST False)"
    if rri.ROTATE_CLASSIFIER and classifier != "linear" and rri.VARIANT not in ("US", "rotate", "none"):
        yield (
            "RRI.ROTATE_CLASSIFIER: keeps the logits of a cosine classifier only if the rotation preserves lengths; "
            f"RRI.VARIANT {rri.VARIANT} does not, US and rotate do"
        )
    if eigenlayer.PARAMETRIZATION != "none" and rri.VARIANT != "none" and (rri.MAX_ROUNDS or rri.FINAL_RESTRAINT):
        yield (
            f"MODEL.EIGENLAYER.PARAMETRIZATION {eigenlayer.PARAMETRIZATION}: W cannot be replaced; set RRI.MAX_ROUNDS "
            "0 and RRI.FINAL_RESTRAINT False to train Step 0 only, or RRI.VARIANT none to train the rounds too"
        )
    if rri.RESET_CLASSIFIER and (rri.ROTATE_CLASSIFIER or eigenlayer.LAST):
        yield "RRI.RESET_CLASSIFIER: there must be a classifier after the Eigenlayer, and ROTATE_CLASSIFIER be False"
    if eigenlayer.LAST and (eigenlayer.DIM or eigenlayer.RELU):
        yield "MODEL.EIGENLAYER.LAST makes the Eigenlayer the classifier: DIM must be 0 and RELU False"
    if eigenlayer.LAST and classifier != "linear":
        yield (
            f"MODEL.CLASSIFIER.NAME {classifier}: MODEL.EIGENLAYER.LAST replaces the classifier; set "
            "MODEL.CLASSIFIER.NAME linear"
        )


def _check_losses(c: CfgNode) -> Iterator[str]:
    loss, sampler, size = c.LOSS, c.SAMPLER, c.SOLVER.BATCH_SIZE
    pairwise = [f"LOSS.{name}" for name in ("TRIPLET", "CONTRASTIVE", "CIRCLE") if loss[name]]
    if not (loss.IDENTITY or loss.CENTER or pairwise):
        yield "LOSS: every loss has weight 0, there is nothing to train"
    trains_weight = loss.IDENTITY or loss.FEATURE == "output" or loss.PENALTY != "none"
    if not trains_weight and (c.RRI.MAX_ROUNDS or c.RRI.FINAL_RESTRAINT):
        yield (
            "LOSS.IDENTITY 0 and LOSS.FEATURE input: no loss depends on the weight of the Eigenlayer, so rounds would "
            "not train it; set LOSS.FEATURE output, or RRI.MAX_ROUNDS 0 and RRI.FINAL_RESTRAINT False"
        )
    if pairwise and sampler.NAME == "shuffled":
        yield (
            f"{' and '.join(pairwise)}: compares images of the same identity, which shuffled batches rarely hold; "
            "set SAMPLER.NAME identity" + (" or mined" if pairwise == ["LOSS.CONTRASTIVE"] else "")
        )
    if sampler.NAME == "mined" and pairwise != ["LOSS.CONTRASTIVE"]:
        yield "SAMPLER.NAME mined: only for LOSS.CONTRASTIVE, which must be above 0, with TRIPLET and CIRCLE 0"
    group = {"identity": sampler.INSTANCES, "mined": 2 + sampler.NEGATIVES}.get(sampler.NAME, 1)
    if size % group:
        yield f"SOLVER.BATCH_SIZE {size} must be a multiple of {group}, the group size of SAMPLER.NAME {sampler.NAME}"
    if sampler.NAME == "identity" and size // group < 2:
        yield f"SOLVER.BATCH_SIZE {size} must hold at least two identities of SAMPLER.INSTANCES {group}"
    if (loss.PENALTY == "none") != (loss.PENALTY_WEIGHT == 0):
        yield f"LOSS.PENALTY {loss.PENALTY} and LOSS.PENALTY_WEIGHT {loss.PENALTY_WEIGHT} must both be set or neither"
    steps, factors = loss.PENALTY_STEPS, loss.PENALTY_FACTORS
    if len(steps) != len(factors) or sorted(steps) != steps or any(not 0 <= step < 1 for step in steps):
        yield "LOSS.PENALTY_STEPS must be increasing fractions of a stage in [0, 1), one per LOSS.PENALTY_FACTORS"
    elif any(factor < 0 for factor in factors):
        yield f"LOSS.PENALTY_FACTORS {factors} must be 0 or more"
