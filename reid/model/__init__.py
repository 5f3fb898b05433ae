"""Backbone, pooling, neck, Eigenlayer, classifier.

A backbone is a function `(*, weights, last_stride, source) -> trunk`: a module from images (B, 3, H, W) float32,
normalized, to a map (B, C, h, w), with C as its attribute `out_channels`. One that takes images of a single size has it
as `input_size`, and the size of its map as `map_size`.
A neck is a function `(d_in, *, weights, source) -> module` from pooled (B, d_in) to the Eigenlayer's input, (B,
`out_features`); a backbone without one hands the pooled vector on as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from reid.model.backbones.caffenet import CaffeNetTrunk, caffenet_neck, caffenet_trunk
from reid.model.backbones.deepface import DeepFaceTrunk, deepface_neck, deepface_trunk
from reid.model.backbones.osnet import WIDTHS, FeatureBlock, OSNetTrunk, osnet_neck, osnet_trunk
from reid.model.backbones.resnet import ResNetTrunk, resnet_trunk
from reid.model.backbones.small import CONNECTIONS, SmallTrunk, small_trunk
from reid.model.pooling.flatten import FullyConnectedBlock

Trunk = OSNetTrunk | ResNetTrunk | CaffeNetTrunk | DeepFaceTrunk | SmallTrunk

BACKBONES: dict[str, Callable[..., Trunk]] = {
    "resnet18": partial(resnet_trunk, "resnet18"),
    "resnet34": partial(resnet_trunk, "resnet34"),
    "resnet50": partial(resnet_trunk, "resnet50"),
    "resnet101": partial(resnet_trunk, "resnet101"),
    "osnet_x0_25": partial(osnet_trunk, "osnet_x0_25"),
    "osnet_x0_5": partial(osnet_trunk, "osnet_x0_5"),
    "osnet_x0_75": partial(osnet_trunk, "osnet_x0_75"),
    "osnet_x1_0": partial(osnet_trunk, "osnet_x1_0"),
    "caffenet": caffenet_trunk,
    "deepface": deepface_trunk,
    **{name: partial(small_trunk, name) for name in CONNECTIONS},
}

NECKS: dict[str, Callable[..., FeatureBlock | FullyConnectedBlock]] = {
    **{name: partial(osnet_neck, name) for name in WIDTHS},
    "caffenet": caffenet_neck,
    "deepface": deepface_neck,
}

# Height and width of the images of backbones that take a single size.
INPUT_SIZES: dict[str, tuple[int, int]] = {
    "caffenet": CaffeNetTrunk.input_size,
    "deepface": DeepFaceTrunk.input_size,
    **{name: SmallTrunk.input_size for name in CONNECTIONS},
}
