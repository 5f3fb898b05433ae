"""reid-strong-baseline (Luo et al., michuanhaohao/reid-strong-baseline): a ResNet, average pooling, BNNeck."""

from __future__ import annotations

from collections.abc import Collection

from reid.model.foreign.parts import (
    Converted,
    Unexplained,
    converted,
    norm_head,
    plain_head,
    resnet_name,
    resnet_options,
    resnet_width,
)

NAME = "reid-strong-baseline"
SEEN = "base.layer1.*, bottleneck.*, classifier.weight"


def is_strong_baseline(names: Collection[str]) -> bool:
    """By `base.`, its backbone."""
    return any(name.startswith(("base.layer", "base.conv1")) for name in names)


def from_strong_baseline(rest: Unexplained) -> Converted:
    """Its usual evaluation (`NECK_FEAT after`) compares what comes out of the BNNeck."""
    options = {"pooling": "average", "last_stride": 1, **resnet_options(rest, "base.")}
    width, notes = resnet_width(options), []
    if options["norm"] == "batch":
        options["stem"] = "no_relu"
        notes.append("its ResNet has no ReLU in the stem; where a fork has added it, give MODEL.STEM standard")
    if rest.drop("base.fc."):
        notes.append("base.fc, which nothing used, is left out")
    bottleneck = any(name.startswith("bottleneck.") for name in rest.tensors)
    return converted(
        rest,
        family=NAME,
        architecture=resnet_name(options),
        names=(("base.", "backbone."),),
        options=options,
        head=norm_head(rest.take_norm("bottleneck", width)) if bottleneck else plain_head(width),
        classifier=rest.take_classifier("classifier", width),
        differences=(
            "a last stride of 1 and images of 256 x 128 are assumed, as its configurations have them: tensors do not "
            "tell them",
            *notes,
        ),
    )
