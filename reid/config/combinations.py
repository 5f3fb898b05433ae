"""What cannot stand in a configuration: values out of range, and values that cannot stand together."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from yacs.config import CfgNode

from reid.config.choices import CHOICES, INPUT_SIZES, RANGES, STAGES


def mistakes_of(c: CfgNode) -> Iterator[str]:
    """Values out of range and combinations that cannot work."""
    for key, names in CHOICES.items():
        for value in _get(c, key).split("+") if key == "DATASETS.NAME" else [_get(c, key)]:
            if value not in names:
                near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.4)
                yield f"{key} {value!r} is none of {', '.join(filter(None, names))}{offer(near)}"
    for key, (low, high) in RANGES.items():
        if not low <= _get(c, key) <= high:
            yield f"{key} {_get(c, key)} must be {f'{low} to {high}' if high < math.inf else f'{low} or more'}"
    for name in STAGES:
        stage = c[name]
        if not stage.LR or min(stage.LR) <= 0:
            yield f"{name}.LR {stage.LR} must be positive rates"
        if any(not 0 < m < 1 for m in stage.MILESTONES) or sorted(stage.MILESTONES) != stage.MILESTONES:
            yield f"{name}.MILESTONES {stage.MILESTONES} must be rising fractions between 0 and 1"
        for text in stage.LR_FACTORS:
            if rate_factor(text) is None:
                yield f"{name}.LR_FACTORS {text!r} must be a name and a factor above 0, such as neck.fc6=0.5"
        if stage.WARMUP_EPOCHS > stage.EPOCHS:
            yield f"{name}.WARMUP_EPOCHS {stage.WARMUP_EPOCHS} must not exceed EPOCHS"
    if len(c.STEP0.LR) != 1:
        yield f"STEP0.LR {c.STEP0.LR} must be one rate, there is one Step 0"
    if len(c.INPUT.SIZE) != 2 or min(c.INPUT.SIZE) < 16 or max(c.INPUT.SIZE) > 1024:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be height and width, 16 to 1024 pixels each"
    if len(c.INPUT.MEAN) != 3 or len(c.INPUT.STD) != 3 or min(c.INPUT.STD) <= 0:
        yield "INPUT.MEAN and INPUT.STD must be three numbers each, STD above 0"
    if c.INPUT.CACHE == "off" and c.INPUT.DEVICE_CACHE == "on":
        yield "INPUT.DEVICE_CACHE on keeps decoded images on the device, and INPUT.CACHE off keeps none: leave it auto"
    if not c.MODEL.WEIGHTS or not c.OUTPUT_DIR:
        yield "MODEL.WEIGHTS and OUTPUT_DIR must not be empty"
    yield from _check_backbone(c)
    if c.MODEL.LAST_STRIDE and not c.MODEL.BACKBONE.startswith("resnet"):
        yield f"MODEL.LAST_STRIDE {c.MODEL.LAST_STRIDE} is for ResNets; leave it 0 for {c.MODEL.BACKBONE}"
    if c.MODEL.STEM != "standard" and not c.MODEL.BACKBONE.startswith("resnet"):
        yield f"MODEL.STEM {c.MODEL.STEM} is for ResNets; leave it standard for {c.MODEL.BACKBONE}"
    if c.MODEL.NECK == "fc512" and not c.MODEL.BACKBONE.startswith("resnet"):
        yield f"MODEL.NECK fc512 is for ResNets, not for {c.MODEL.BACKBONE}"
    yield from _check_pooling(c.MODEL.POOLING)
    eigenlayer = c.MODEL.EIGENLAYER
    if eigenlayer.INIT_STD <= 0:
        yield f"MODEL.EIGENLAYER.INIT_STD {eigenlayer.INIT_STD} must be above 0"
    if c.RRI.ROTATE_CLASSIFIER and (eigenlayer.BIAS or eigenlayer.RELU or eigenlayer.LAST):
        yield "RRI.ROTATE_CLASSIFIER needs a plain Eigenlayer before a classifier (BIAS, RELU and LAST False)"
    if c.MODEL.CLASSIFIER.SCALE <= 0:
        yield f"MODEL.CLASSIFIER.SCALE {c.MODEL.CLASSIFIER.SCALE} must be above 0"
    if c.RRI.ROTATE_CLASSIFIER and c.MODEL.CLASSIFIER.NAME != "linear" and c.RRI.VARIANT not in ("US", "none"):
        yield (
            f"RRI.ROTATE_CLASSIFIER keeps the logits of a classifier by cosines only where the turn keeps lengths: "
            f"RRI.VARIANT {c.RRI.VARIANT} does not, US does"
        )
    if eigenlayer.PARAMETRIZATION != "none" and (c.RRI.MAX_ROUNDS or c.RRI.FINAL_RESTRAINT):
        yield (
            f"MODEL.EIGENLAYER.PARAMETRIZATION {eigenlayer.PARAMETRIZATION} leaves W no freedom to be replaced: set "
            "RRI.MAX_ROUNDS 0 and RRI.FINAL_RESTRAINT False to train Step 0 alone"
        )
    yield from _check_losses(c)
    if eigenlayer.LAST and (eigenlayer.DIM or eigenlayer.RELU):
        yield "MODEL.EIGENLAYER.LAST makes the Eigenlayer the classifier: DIM must be 0 and RELU False"
    if c.SOLVER.NORM_STATISTICS == "frozen" and c.MODEL.WEIGHTS == "none":
        yield (
            "SOLVER.NORM_STATISTICS frozen keeps the BatchNorm statistics of a pretrained network, and MODEL.WEIGHTS "
            "none has no such statistics: give weights, or set SOLVER.NORM_STATISTICS running"
        )


def _check_backbone(c: CfgNode) -> Iterator[str]:
    backbone, norm, size = c.MODEL.BACKBONE, c.MODEL.NORM.NAME, INPUT_SIZES.get(c.MODEL.BACKBONE)
    if size and size != c.INPUT.SIZE:
        yield f"INPUT.SIZE {c.INPUT.SIZE} must be {size} for {backbone}, which takes no others"
    if c.MODEL.POOLING.NAME == "flatten" and not size:
        yield f"MODEL.POOLING.NAME flatten needs maps of one size ({', '.join(INPUT_SIZES)}), not those of {backbone}"
    if norm.startswith("ibn_") and not backbone.startswith("resnet"):
        yield f"MODEL.NORM.NAME {norm} is for ResNets, not for {backbone}"
    if norm != "batch" and backbone in ("caffenet", "deepface"):
        yield f"MODEL.NORM.NAME {norm} replaces batch normalization, and {backbone} has none: leave it batch"
    if c.SOLVER.NORM_STATISTICS == "frozen":
        if c.MODEL.NECK == "bnneck":
            yield "SOLVER.NORM_STATISTICS frozen leaves a BNNeck, which is new, without any: set MODEL.NECK none"
        if norm not in ("batch", "sync_batch", "ibn_a", "ibn_b"):
            yield f"SOLVER.NORM_STATISTICS frozen keeps BatchNorm statistics, and MODEL.NORM.NAME {norm} has none"


def _check_losses(c: CfgNode) -> Iterator[str]:
    loss, sampler, size = c.LOSS, c.SAMPLER, c.SOLVER.BATCH_SIZE
    of_pairs = [f"LOSS.{name}" for name in ("TRIPLET", "CONTRASTIVE", "CIRCLE") if loss[name]]
    if not (loss.IDENTITY or loss.CENTER or of_pairs):
        yield "LOSS gives every loss the weight 0: nothing would be learned"
    if of_pairs and sampler.NAME == "shuffled":
        yield (
            f"{' and '.join(of_pairs)} compares images of one identity, which a shuffled batch hardly holds two of: "
            "set SAMPLER.NAME identity" + (" or mined" if of_pairs == ["LOSS.CONTRASTIVE"] else "")
        )
    if sampler.NAME == "mined" and of_pairs != ["LOSS.CONTRASTIVE"]:
        yield "SAMPLER.NAME mined makes the tuples of LOSS.CONTRASTIVE, which must be above 0, TRIPLET and CIRCLE 0"
    group = {"identity": sampler.INSTANCES, "mined": 2 + sampler.NEGATIVES}.get(sampler.NAME, 1)
    if size % group:
        yield f"SOLVER.BATCH_SIZE {size} must be a multiple of {group}, which SAMPLER.NAME {sampler.NAME} puts together"
    if sampler.NAME == "identity" and size // group < 2:
        yield f"SOLVER.BATCH_SIZE {size} holds one identity of SAMPLER.INSTANCES {group}: two or more are needed"
    if c.MODEL.EIGENLAYER.LAST and c.MODEL.CLASSIFIER.NAME != "linear":
        yield f"MODEL.EIGENLAYER.LAST leaves no classifier to be {c.MODEL.CLASSIFIER.NAME}"
    if (loss.PENALTY == "none") != (loss.PENALTY_WEIGHT == 0):
        yield f"LOSS.PENALTY {loss.PENALTY} and LOSS.PENALTY_WEIGHT {loss.PENALTY_WEIGHT} must both be given or neither"
    steps, factors = loss.PENALTY_STEPS, loss.PENALTY_FACTORS
    if len(steps) != len(factors) or sorted(steps) != steps or any(not 0 <= part < 1 for part in steps):
        yield "LOSS.PENALTY_STEPS must be rising parts of a stage in [0, 1), each with one of LOSS.PENALTY_FACTORS"
    elif any(factor < 0 for factor in factors):
        yield f"LOSS.PENALTY_FACTORS {factors} must be 0 or more"


def rate_factor(text: str) -> tuple[str, float] | None:
    """The two halves of `neck.fc6=0.5`; None where it is not of that form or the factor is not above 0."""
    name, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        return None
    return (name.strip(), value) if name.strip() and 0 < value < math.inf else None


def _check_pooling(pooling: CfgNode) -> Iterator[str]:
    if pooling.P <= 0:
        yield f"MODEL.POOLING.P {pooling.P} must be above 0: 1 is the average, 3 is usual"
    clusters = pooling.CLUSTERS + (pooling.GHOSTS if pooling.NAME == "ghost_vlad" else 0)
    if pooling.NAME.endswith("vlad") and pooling.INIT != "random" and clusters > pooling.DESCRIPTORS:
        yield f"MODEL.POOLING.DESCRIPTORS {pooling.DESCRIPTORS} must be at least the {clusters} clusters of k-means"


def _get(config: CfgNode, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def offer(near: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(near)}?)" if near else ""
