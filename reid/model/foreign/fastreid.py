"""fast-reid (He et al., JDAI-CV/fast-reid): its baseline with a ResNet, with or without IBN-a, GeM and BNNeck."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reid.errors import InputError
from reid.model.foreign.parts import (
    IMAGENET,
    Converted,
    Head,
    Unexplained,
    converted,
    linear_head,
    norm_head,
    plain_head,
    resnet_name,
    resnet_options,
    resnet_width,
)

NAME = "fast-reid"
SEEN = "backbone.layer1.*, heads.bottleneck.* or heads.bnneck.*, heads.weight or heads.classifier.weight"


def is_fastreid(names: Collection[str]) -> bool:
    """By `backbone.` or `heads.`, the two parts of its models."""
    return any(name.startswith(("backbone.layer", "backbone.conv1", "heads.")) for name in names)


def from_fastreid(rest: Unexplained) -> Converted:
    """Its evaluation compares what comes out of the neck."""
    options = resnet_options(rest, "backbone.")
    notes = []
    if "heads.pool_layer.p" in rest.tensors:
        options["pooling"] = "gem"
    else:
        options["pooling"] = "average"
        notes.append(
            "average pooling is assumed: no other of its poolings than GeM with a learned exponent has a tensor"
        )
    head = _head(rest, resnet_width(options))
    rest.drop("heads.cls_layer.")
    classifier = None
    for name in ("heads.weight", "heads.classifier.weight"):
        if name in rest.tensors:
            classifier = rest.take(name, None, head.width), None
    mean, std = _pixels(rest, "pixel_mean", IMAGENET[0]), _pixels(rest, "pixel_std", IMAGENET[1])
    return converted(
        rest,
        family=NAME,
        architecture=resnet_name(options),
        names=(("backbone.", "backbone."), ("heads.pool_layer.", "pooling.")),
        options={**options, "last_stride": 1, "stem": "ceil"},
        head=head,
        classifier=classifier,
        differences=(
            "a last stride of 1 and images of 256 x 128 are assumed, its defaults: tensors do not tell them",
            "its classifier is taken for a linear one; its training may have used cosines and a margin",
            *notes,
        ),
        resize="bicubic",
        mean=mean,
        std=std,
    )


def _head(rest: Unexplained, width: int) -> Head:
    first = rest.tensors.get("heads.bottleneck.0.weight")
    if first is not None and first.ndim != 1:
        weight = rest.take("heads.bottleneck.0.weight", None, width, 1, 1).flatten(1)
        normed = "heads.bottleneck.1.weight" in rest.tensors
        norm = rest.take_norm("heads.bottleneck.1", len(weight)) if normed else None
        return linear_head(weight, None, norm)
    for name in ("heads.bottleneck.0", "heads.bnneck"):
        if any(found.startswith(f"{name}.") for found in rest.tensors):
            return norm_head(rest.take_norm(name, width))
    return plain_head(width)


def _pixels(rest: Unexplained, name: str, default: Sequence[float]) -> tuple[float, ...]:
    """Mean or standard deviation of RGB, kept in 0 .. 255, in [0, 1]."""
    if name not in rest.tensors:
        return tuple(default)
    values = rest.tensors.pop(name).flatten().tolist()
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise InputError(f"{rest.source}: {name} is {values[:4]} instead of three numbers in 0 .. 255, for RGB")
    return tuple(round(value / 255, 6) for value in values)
