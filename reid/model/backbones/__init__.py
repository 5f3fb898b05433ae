"""Backbones: images (B, 3, H, W) float32, normalized -> feature maps (B, C, h, w).

A backbone is built by a function `(*, weights, source) -> nn.Module` listed in `BACKBONES`, that of a ResNet also takes
`last_stride`. The module has C as its attribute `out_channels`. A backbone that takes images of a single size has it as
`input_size` and the size of its maps as `map_size`, both height, width. Networks of timm are built by `timm_trunk` in
`reid.model.backbones.timm_trunk`, by any of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from reid.errors import InputError, unknown_name
from reid.io.checkpoint import load_state_dict
from reid.model.backbones.caffenet import CaffeNetTrunk
from reid.model.backbones.deepface import DeepFaceTrunk
from reid.model.backbones.osnet import WIDTHS, OSNetTrunk, osnet_trunk
from reid.model.backbones.resnet import ResNetTrunk, change_stem, resnet_trunk
from reid.model.backbones.small import CONNECTIONS, SmallTrunk, small_trunk
from reid.model.backbones.timm_trunk import TimmTrunk
from reid.model.normalization import normalize
from reid.model.normalization.ibn import has_ibn_names

Trunk = OSNetTrunk | ResNetTrunk | CaffeNetTrunk | DeepFaceTrunk | SmallTrunk | TimmTrunk


def _trunk(
    kind: Callable[[], Trunk],
    network: str,
    unused: tuple[str, ...],
    *,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> Trunk:
    """Build a backbone whose weights are under the names of its own tensors; `unused` are the layers after it."""
    trunk = kind()
    if weights is not None:
        others = [name for name in weights if name.startswith(unused)]
        load_state_dict(trunk, weights, network=network, source=source, unused=others)
    return trunk


BACKBONES: dict[str, Callable[..., Trunk]] = {
    "resnet18": partial(resnet_trunk, "resnet18"),
    "resnet34": partial(resnet_trunk, "resnet34"),
    "resnet50": partial(resnet_trunk, "resnet50"),
    "resnet101": partial(resnet_trunk, "resnet101"),
    **{name: partial(osnet_trunk, name) for name in WIDTHS},
    "caffenet": partial(_trunk, CaffeNetTrunk, "caffenet", ("fc6.", "fc7.", "fc8.")),
    "deepface": partial(_trunk, DeepFaceTrunk, "deepface", ("f7.", "f8.")),
    **{name: partial(small_trunk, name) for name in CONNECTIONS},
}

# Height and width of the images of backbones that take a single size.
INPUT_SIZES: dict[str, tuple[int, int]] = {
    "caffenet": CaffeNetTrunk.input_size,
    "deepface": DeepFaceTrunk.input_size,
    **{name: SmallTrunk.input_size for name in CONNECTIONS},
}


def build_backbone(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    stem: str = "standard",
    norm: str = "batch",
    norm_groups: int = 32,
    source: str = "the given weights",
) -> Trunk:
    """Build a backbone.

    Published weights of IBN-Net are loaded into the network that already has its layers; all others are loaded before
    the normalization is replaced.

    Args:
        name: A key of `BACKBONES`.
        weights: Published state dict of the bare network, or None to start from scratch.
        last_stride: Stride of the last stage; None keeps the network's own.
        stem: Stem of a ResNet, one of `STEMS` in `reid.model.backbones.resnet`.
        norm: Normalization of the feature maps, one of `NORMS` in `reid.model.normalization`.
        norm_groups: Number of groups for the norm "group".
        source: Name of the weights in error messages, preferably their path.

    Returns:
        The backbone, on the CPU unless a default device is set.

    Raises:
        InputError: If the name is unknown, the weights do not fit, or the backbone does not have one of the options.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, tuple(BACKBONES))
    has_ibn_layers = weights is not None and norm.startswith("ibn_") and has_ibn_names(weights)
    strides = {} if last_stride is None else {"last_stride": last_stride}
    if strides and not name.startswith("resnet"):
        raise InputError(f"{name} does not support MODEL.LAST_STRIDE (got {last_stride}); set it to 0")
    backbone = BACKBONES[name](weights=None if has_ibn_layers else weights, source=source, **strides)
    pretrained = weights is not None and not has_ibn_layers
    normalize(backbone, norm, groups=norm_groups, network=name, pretrained=pretrained)
    if weights is not None and has_ibn_layers:
        unused = ("fc.weight", "fc.bias")
        load_state_dict(backbone, weights, network=f"{name} with {norm}", source=source, unused=unused)
    change_stem(backbone, stem, name)
    return backbone
