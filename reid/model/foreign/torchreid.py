"""torchreid (Zhou and Xiang, KaiyangZhou/deep-person-reid): ResNets, also with a fc layer, and OSNets."""

from __future__ import annotations

from collections.abc import Collection

from reid.errors import InputError
from reid.model.backbones.osnet import CHANNELS, FEATURE_DIM, WIDTHS
from reid.model.foreign.parts import (
    Converted,
    Unexplained,
    converted,
    plain_head,
    resnet_name,
    resnet_options,
    resnet_width,
)

NAME = "torchreid"
SEEN = "conv1.weight, layer1.* (ResNet) or conv1.conv.weight, conv2.* (OSNet), with classifier.weight"


def is_torchreid(names: Collection[str]) -> bool:
    """By names without a prefix, as torchvision has them, or those of OSNet."""
    return any(name.startswith(("layer1.", "layer4.", "conv1.conv.", "conv2.0.", "conv5.")) for name in names)


def from_torchreid(rest: Unexplained) -> Converted:
    """A ResNet or an OSNet; both compare the vector that the classifier gets."""
    if any(name.startswith("layer") for name in rest.tensors):
        return _resnet(rest)
    return _osnet(rest)


def _resnet(rest: Unexplained) -> Converted:
    options = {"pooling": "average", **resnet_options(rest, "")}
    width, guess, architecture = resnet_width(options), 2, resnet_name(options)
    if any(name.startswith("fc.") for name in rest.tensors):
        options["fc_neck"], width, guess = True, FEATURE_DIM, 1
        architecture += "_fc512"
    options["last_stride"] = guess
    return converted(
        rest,
        family=NAME,
        architecture=architecture,
        names=(("fc.", "neck."), ("", "backbone.")),
        options=options,
        classifier=rest.take_classifier("classifier", width),
        head=plain_head(width),
        differences=(f"a last stride of {guess} is assumed, as theirs has: tensors do not tell it",),
    )


def _osnet(rest: Unexplained) -> Converted:
    weight = rest.tensors.get("conv1.conv.weight")
    widths = {int(CHANNELS[0] * width): name for name, width in WIDTHS.items()}
    channels = len(weight) if weight is not None and weight.ndim == 4 else 0
    if channels not in widths:
        found = "not there" if weight is None else f"{tuple(weight.shape)}"
        known = ", ".join(f"{name} has {count} channels" for count, name in widths.items())
        raise InputError(f"{rest.source}: an OSNet whose conv1.conv.weight is {found} is none of those here: {known}")
    if any(".IN." in name or name.endswith(("IN.weight", "IN.bias")) for name in rest.tensors):
        raise InputError(f"{rest.source}: an OSNet with instance normalization (osnet_ain, osnet_ibn) is none of ours")
    return converted(
        rest,
        family=NAME,
        architecture=widths[channels],
        names=(("fc.", "neck."), ("", "backbone.")),
        options={"backbone": widths[channels], "pooling": "average"},
        classifier=rest.take_classifier("classifier", FEATURE_DIM),
        head=plain_head(FEATURE_DIM),
    )
