"""reid-strong-baseline (Luo et al., michuanhaohao/reid-strong-baseline): a ResNet, average pooling, BNNeck."""

from __future__ import annotations

from reid.model.foreign.parts import (
    BackboneSpec,
    Converted,
    Detection,
    RemainingTensors,
    assemble,
    identity_head,
    norm_head,
    recognize_resnet,
)

NAME = "reid-strong-baseline"
TENSORS = "base.layer1.*, bottleneck.*, classifier.weight"
PREFIXES = ("base.layer", "base.conv1")  # its backbone


def from_strong_baseline(remaining: RemainingTensors) -> Converted:
    """Convert a checkpoint; the family's usual evaluation (`NECK_FEAT after`) compares the output of the BNNeck.

    Args:
        remaining: Tensors of the file.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    backbone, norm = recognize_resnet(remaining, "base.")
    body = BackboneSpec(backbone, norm, last_stride=1, stem="no_relu" if norm == "batch" else "standard")
    notes = []
    if body.stem == "no_relu":
        notes.append("its ResNet has no ReLU in the stem; if a fork has added it, set MODEL.STEM standard")
    if remaining.drop("base.fc."):
        notes.append("base.fc, which is unused, is dropped")
    has_bottleneck = any(name.startswith("bottleneck.") for name in remaining.tensors)
    recognized = Detection(
        family=NAME,
        body=body,
        names=(("base.", "backbone."),),
        head=norm_head(remaining.take_norm("bottleneck", body.width)) if has_bottleneck else identity_head(body.width),
        classifier=remaining.take_classifier("classifier", body.width),
        differences=(
            "a last stride of 1 and images of 256 x 128 are assumed, as in its configurations; they cannot be "
            "inferred from the weights",
            *notes,
        ),
    )
    return assemble(remaining, recognized)
