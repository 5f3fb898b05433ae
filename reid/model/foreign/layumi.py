"""Person_reID_baseline_pytorch (Zheng, layumi): torchvision's ResNet, then linear, batch normalization, classifier."""

from __future__ import annotations

from reid.model.foreign.parts import (
    BackboneSpec,
    Converted,
    Detection,
    RemainingTensors,
    assemble,
    linear_head,
    norm_head,
    recognize_resnet,
)

NAME = "layumi"
TENSORS = "model.layer1.*, classifier.add_block.*, classifier.classifier.0.*"
PREFIXES = ("model.layer", "classifier.add_block.")  # torchvision's network, and the block before the classifier


def from_layumi(remaining: RemainingTensors) -> Converted:
    """Convert a checkpoint; the family's test compares the input of the last linear layer, summed over both flips.

    Args:
        remaining: Tensors of the file.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    body = BackboneSpec(*recognize_resnet(remaining, "model."), last_stride=2)
    notes = ["model.fc, which is unused, is dropped"] if remaining.drop("model.fc.") else []
    first = remaining.tensors.get("classifier.add_block.0.weight")
    if first is not None and first.ndim == 1:
        head = norm_head(remaining.take_norm("classifier.add_block.0", body.width))
    else:
        weight = remaining.take("classifier.add_block.0.weight", None, body.width)
        bias = remaining.take("classifier.add_block.0.bias", len(weight))
        head = linear_head(weight, bias, remaining.take_norm("classifier.add_block.1", len(weight)))
    recognized = Detection(
        family=NAME,
        body=body,
        names=(("model.", "backbone."),),
        head=head,
        classifier=remaining.take_classifier("classifier.classifier.0", head.width),
        differences=(
            "a last stride of 2 is assumed, its default; it cannot be inferred from the weights",
            "the leaky ReLU before the classifier of its first versions has no weights and is not reproduced",
            "its test adds the feature of the mirror image, like the flip test here",
            *notes,
        ),
        resize="bicubic",
    )
    return assemble(remaining, recognized)
