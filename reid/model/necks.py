"""Necks: layers between the pooled vector and the Eigenlayer.

A neck is a module from pooled (B, d_in) float32 to the Eigenlayer's input (B, `out_features`). Some backbones publish
one of their own, built by a function `(d_in, *, weights, source) -> nn.Module` listed in `NECKS`.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from reid.io.checkpoint import load_state_dict
from reid.model.backbones.osnet import WIDTHS, FeatureBlock, published_osnet

logger = logging.getLogger(__name__)


class IdentityNeck(nn.Identity):
    """No neck: passes the pooled vector on unchanged.

    Args:
        features: Width of the pooled vector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.in_features = self.out_features = features


class FullyConnectedBlock(nn.Sequential):
    """Fully connected layer, ReLU, dropout: (B, in_features) -> (B, out_features).

    Args:
        name: Name of the layer, which its tensors carry in a state dict.
        in_features: Width of the input vector.
        out_features: Width of the output vector.
        dropout: Probability of dropping an output in training, in [0, 1).
        std: Standard deviation of the initial weights.
        bias: Initial value of all biases.
    """

    def __init__(self, name: str, in_features: int, out_features: int, dropout: float, std: float, bias: float) -> None:
        linear = nn.Linear(in_features, out_features)
        nn.init.normal_(linear.weight, std=std)
        nn.init.constant_(linear.bias, bias)
        super().__init__(OrderedDict({name: linear, "relu": nn.ReLU(), "dropout": nn.Dropout(dropout)}))
        self.in_features, self.out_features = in_features, out_features


class BNNeck(nn.BatchNorm1d):
    """BNNeck: batch normalization of the Eigenlayer's input (B, features), with a scale and without a shift.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPRW 2019. It comes before the
    Eigenlayer: after it, the replacement of W by US would invalidate its running statistics.

    Args:
        features: Width of the input.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_parameter("bias", None)


def osnet_neck(
    name: str, d_in: int, *, weights: Mapping[str, Tensor] | None = None, source: str = "the given weights"
) -> FeatureBlock:
    """Build the fc block of OSNet: linear to 512, batch normalization, ReLU.

    If `d_in` differs from the published width (a pooling that widens), the block gets a new linear layer, and the log
    says so. The running statistics of its batch normalization, which belonged to the old layer, start anew too.

    Args:
        name: Name of the OSNet, a key of `WIDTHS` in `reid.model.backbones.osnet`.
        d_in: Width of the pooled vector.
        weights: Published state dict of the whole OSNet, or None to start from scratch.
        source: Name of the weights in error messages.

    Returns:
        Layer (B, d_in) -> (B, 512), on the CPU.

    Raises:
        InputError: If the weights do not fit the OSNet.
    """
    if weights is None:
        return FeatureBlock(d_in)
    published = published_osnet(name, weights, source).fc
    if published.in_features == d_in:
        return published
    logger.warning(
        "%s: the pooled width is %d, the published one %d: the linear layer of the fc block is new",
        name,
        d_in,
        published.in_features,
    )
    neck = FeatureBlock(d_in)
    scale_and_shift = {name: published.state_dict()[name] for name in ("1.weight", "1.bias")}
    neck.load_state_dict(scale_and_shift, strict=False)
    return neck


def fully_connected_neck(
    network: str,
    layer: str,
    d_in: int,
    *,
    std: float | None = None,
    bias: float = 0.0,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> FullyConnectedBlock:
    """Build the first fully connected layer of CaffeNet or DeepFace: to 4096, ReLU, dropout 0.5.

    Args:
        network: Name of the network in messages.
        layer: Name of the layer in the weights.
        d_in: Width of the pooled vector. The published networks flatten: 256 x 6 x 6 = 9216 and 16 x 21 x 21 = 7056.
        std: Standard deviation of the initial weights; None for sqrt(2 / `d_in`).
        bias: Initial value of all biases.
        weights: State dict of the whole network, or None to start from scratch.
        source: Name of the weights in error messages.

    Returns:
        The block, new (with a warning) if `d_in` is not the width of the weights.

    Raises:
        InputError: If tensors of the layer are missing or have a different shape.
    """
    std = math.sqrt(2 / d_in) if std is None else std
    neck = FullyConnectedBlock(layer, d_in, 4096, dropout=0.5, std=std, bias=bias)
    if weights is None:
        return neck
    own = {name: tensor for name, tensor in weights.items() if name in neck.state_dict()}
    weight = own.get(f"{layer}.weight")
    if weight is not None and weight.ndim == 2 and weight.shape[1] != d_in:
        logger.warning("%s: the pooled width is %d, not that of the weights: %s is new", network, d_in, layer)
    else:
        load_state_dict(neck, own, network=network, source=source)
    return neck


NECKS: dict[str, Callable[..., FeatureBlock | FullyConnectedBlock]] = {
    **{name: partial(osnet_neck, name) for name in WIDTHS},
    "caffenet": partial(fully_connected_neck, "caffenet", "fc6", std=0.005, bias=1.0),
    "deepface": partial(fully_connected_neck, "deepface", "f7"),
}

Neck = IdentityNeck | FeatureBlock | FullyConnectedBlock


def build_neck(
    backbone: str,
    d_in: int,
    *,
    fc512: bool = False,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> Neck:
    """Build the neck of a backbone.

    Args:
        backbone: Name of the backbone; those in `NECKS` have a neck of their own.
        d_in: Width of the pooled vector.
        fc512: Give other backbones a linear layer to 512, batch normalization and ReLU.
        weights: Published state dict of the whole network, or None to start from scratch.
        source: Name of the weights in error messages, preferably their path.

    Returns:
        The neck, (B, d_in) -> (B, `out_features`); an `IdentityNeck` where there are no layers.

    Raises:
        InputError: If the weights do not fit.
    """
    if backbone in NECKS:
        return NECKS[backbone](d_in, weights=weights, source=source)
    return FeatureBlock(d_in) if fc512 else IdentityNeck(d_in)
