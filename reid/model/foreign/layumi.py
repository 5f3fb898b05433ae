"""Person_reID_baseline_pytorch (Zheng, layumi): torchvision's ResNet, then linear, batch normalization, classifier."""

from __future__ import annotations

from collections.abc import Collection

from reid.model.foreign.parts import (
    Converted,
    Unexplained,
    converted,
    linear_head,
    norm_head,
    resnet_name,
    resnet_options,
    resnet_width,
)

NAME = "layumi"
SEEN = "model.layer1.*, classifier.add_block.*, classifier.classifier.0.*"


def is_layumi(names: Collection[str]) -> bool:
    """By `model.`, torchvision's network, or its block before the classifier."""
    return any(name.startswith(("model.layer", "model.conv1", "classifier.add_block.")) for name in names)


def from_layumi(rest: Unexplained) -> Converted:
    """Its test compares what goes into the last linear layer, the sum over the image and its mirror image."""
    options = {"pooling": "average", "last_stride": 2, **resnet_options(rest, "model.")}
    width = resnet_width(options)
    notes = ["model.fc, which nothing used, is left out"] if rest.drop("model.fc.") else []
    first = rest.tensors.get("classifier.add_block.0.weight")
    if first is not None and first.ndim == 1:
        head = norm_head(rest.take_norm("classifier.add_block.0", width))
    else:
        weight = rest.take("classifier.add_block.0.weight", None, width)
        bias = rest.take("classifier.add_block.0.bias", len(weight))
        head = linear_head(weight, bias, rest.take_norm("classifier.add_block.1", len(weight)))
    return converted(
        rest,
        family=NAME,
        architecture=resnet_name(options),
        names=(("model.", "backbone."),),
        options=options,
        head=head,
        classifier=rest.take_classifier("classifier.classifier.0", head.width),
        differences=(
            "a last stride of 2 is assumed, its default: tensors do not tell it",
            "the leaky ReLU that its first versions had before the classifier shows in no tensor and is not made",
            "its test adds the feature of the mirror image: that is the flip test here",
            *notes,
        ),
        resize="bicubic",
    )
