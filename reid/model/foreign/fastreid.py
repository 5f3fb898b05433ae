"""fast-reid (He et al., JDAI-CV/fast-reid): its baseline with a ResNet, with or without IBN-a, GeM and BNNeck."""

from __future__ import annotations

from collections.abc import Sequence

from reid.errors import InputError
from reid.model.foreign.parts import (
    BackboneSpec,
    Converted,
    ConvertedHead,
    Detection,
    RemainingTensors,
    assemble,
    identity_head,
    linear_head,
    norm_head,
    recognize_resnet,
)
from reid.records import IMAGENET_MEAN, IMAGENET_STD

NAME = "fast-reid"
TENSORS = "backbone.layer1.*, heads.bottleneck.* or heads.bnneck.*, heads.weight or heads.classifier.weight"
PREFIXES = ("backbone.layer", "backbone.conv1", "heads.")  # the two parts of its models


def from_fastreid(remaining: RemainingTensors) -> Converted:
    """Convert a checkpoint; the family's evaluation compares the output of the neck.

    Args:
        remaining: Tensors of the file.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    backbone, norm = recognize_resnet(remaining, "backbone.")
    gem = "heads.pool_layer.p" in remaining.tensors
    body = BackboneSpec(backbone, norm, last_stride=1, stem="ceil", pooling="gem" if gem else "average")
    head = _head(remaining, body.width)
    remaining.drop("heads.cls_layer.")
    classifier = None
    for name in ("heads.weight", "heads.classifier.weight"):
        if name in remaining.tensors:
            classifier = remaining.take(name, None, head.width), None
    no_gem = "average pooling is assumed: only GeM with a learned exponent can be inferred from the weights"
    mean, std = _pixels(remaining, "pixel_mean", IMAGENET_MEAN), _pixels(remaining, "pixel_std", IMAGENET_STD)
    recognized = Detection(
        family=NAME,
        body=body,
        names=(("backbone.", "backbone."), ("heads.pool_layer.", "pooling.")),
        head=head,
        classifier=classifier,
        differences=(
            "a last stride of 1 and images of 256 x 128 are assumed, its defaults; they cannot be inferred from the "
            "weights",
            "its classifier is assumed to be linear; its training may have used cosines and a margin",
            *(() if gem else (no_gem,)),
        ),
        resize="bicubic",
        mean=mean,
        std=std,
    )
    return assemble(remaining, recognized)


def _head(remaining: RemainingTensors, width: int) -> ConvertedHead:
    first = remaining.tensors.get("heads.bottleneck.0.weight")
    if first is not None and first.ndim != 1:
        weight = remaining.take("heads.bottleneck.0.weight", None, width, 1, 1).flatten(1)
        has_norm = "heads.bottleneck.1.weight" in remaining.tensors
        norm = remaining.take_norm("heads.bottleneck.1", len(weight)) if has_norm else None
        return linear_head(weight, None, norm)
    for name in ("heads.bottleneck.0", "heads.bnneck"):
        if any(tensor.startswith(f"{name}.") for tensor in remaining.tensors):
            return norm_head(remaining.take_norm(name, width))
    return identity_head(width)


def _pixels(remaining: RemainingTensors, name: str, default: Sequence[float]) -> tuple[float, ...]:
    """Convert the mean or standard deviation of RGB from 0 .. 255 to [0, 1]."""
    if name not in remaining.tensors:
        return tuple(default)
    values = remaining.tensors.pop(name).flatten().tolist()
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise InputError(f"{remaining.source}: {name} is {values[:4]} instead of three numbers in [0, 255], for RGB")
    return tuple(round(value / 255, 6) for value in values)
