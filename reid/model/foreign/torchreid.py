"""torchreid (Zhou and Xiang, KaiyangZhou/deep-person-reid): ResNets, with or without an fc layer, and OSNets."""

from __future__ import annotations

from reid.errors import InputError
from reid.model.backbones.osnet import CHANNELS, WIDTHS
from reid.model.foreign.parts import (
    BackboneSpec,
    Converted,
    Detection,
    RemainingTensors,
    assemble,
    identity_head,
    recognize_resnet,
)

NAME = "torchreid"
_FC = "its fc, a linear layer followed by batch normalization and ReLU,"
TENSORS = "conv1.weight, layer1.* (ResNet) or conv1.conv.weight, conv2.* (OSNet), with classifier.weight"
PREFIXES = ("layer1.", "layer4.", "conv1.conv.", "conv2.0.", "conv5.")  # those of torchvision and OSNet


def from_torchreid(remaining: RemainingTensors) -> Converted:
    """Convert a ResNet or an OSNet; both compare the input of the classifier.

    Args:
        remaining: Tensors of the file.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    body = _resnet(remaining) if any(name.startswith("layer") for name in remaining.tensors) else _osnet(remaining)
    assumed = (
        f"a last stride of {body.last_stride} is assumed, as in its models; it cannot be inferred from the weights"
    )
    recognized = Detection(
        family=NAME,
        body=body,
        names=(("fc.", "neck."), ("", "backbone.")),
        classifier=remaining.take_classifier("classifier", body.width),
        head=identity_head(body.width, after=_FC if "fc.0.weight" in remaining.tensors else ""),
        differences=(assumed,) if body.last_stride else (),
    )
    return assemble(remaining, recognized)


def _resnet(remaining: RemainingTensors) -> BackboneSpec:
    fc512 = any(name.startswith("fc.") for name in remaining.tensors)
    return BackboneSpec(*recognize_resnet(remaining, ""), last_stride=1 if fc512 else 2, fc512=fc512)


def _osnet(remaining: RemainingTensors) -> BackboneSpec:
    weight = remaining.tensors.get("conv1.conv.weight")
    widths = {int(CHANNELS[0] * width): name for name, width in WIDTHS.items()}
    channels = len(weight) if weight is not None and weight.ndim == 4 else 0
    if channels not in widths:
        shape = "missing" if weight is None else f"{tuple(weight.shape)}"
        known = ", ".join(f"{name} has {count} channels" for count, name in widths.items())
        raise InputError(f"{remaining.source}: an OSNet whose conv1.conv.weight is {shape} is not supported; {known}")
    if any(".IN." in name or name.endswith(("IN.weight", "IN.bias")) for name in remaining.tensors):
        raise InputError(
            f"{remaining.source}: OSNets with instance normalization (osnet_ain, osnet_ibn) are not supported"
        )
    return BackboneSpec(widths[channels])
