"""EfficientNets of the package EfficientNet-PyTorch, and those ported from it, under the names of timm."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor

from reid.errors import InputError

_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXCITATION = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDED = {
    **_EXCITATION,
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}
_NOT_EXPANDED = {**_EXCITATION, "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def from_efficientnet_pytorch(
    weights: dict[str, Tensor], names: Collection[str], *, network: str, source: str
) -> dict[str, Tensor]:
    """Rename the tensors of an EfficientNet of the package EfficientNet-PyTorch or efficientnet-lite-pytorch.

    Args:
        weights: State dict of any network.
        names: Names of the tensors of the network of timm, in its order.
        network: `timm:NAME`, for the check: the packages pad as TensorFlow does, which only timm's `tf_` networks do.
        source: Name of the weights in error messages.

    Returns:
        The state dict under timm's names; `weights` if it is of another network.

    Raises:
        InputError: If `network` is not a `tf_` network of timm.
    """
    if "_conv_stem.weight" not in weights:
        return weights
    if not network.startswith("timm:tf_efficientnet"):
        raise InputError(
            f"{source}: the weights of an EfficientNet that pads as TensorFlow does, unlike {network}; set "
            "MODEL.BACKBONE to that of timm's tf_ networks, such as timm:tf_efficientnet_lite0"
        )
    # There blocks are numbered throughout, here within their stage.
    blocks = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names if name.startswith("blocks.")))
    renamed = {}
    for name, tensor in weights.items():
        path, rest, parts = "", name, _STEM_AND_HEAD
        if block := re.match(r"_blocks\.(\d+)\.", name):
            number = int(block[1])
            path = f"{blocks[number]}." if number < len(blocks) else block[0]
            rest = name[block.end() :]
            parts = _EXPANDED if f"{block[0]}_expand_conv.weight" in weights else _NOT_EXPANDED
        layer, _, kind = rest.rpartition(".")
        renamed[f"{path}{parts.get(layer, layer)}.{kind}"] = tensor
    return renamed
