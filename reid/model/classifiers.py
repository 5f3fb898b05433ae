"""Classifiers over identities: linear, cosine, and the margins ArcFace and CosFace."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import check_count, unknown_name

MARGINS = {"arcface": 0.5, "cosface": 0.35}  # the papers' margins: radians, and a difference of cosines
CLASSIFIERS = ("linear", "cosine", *MARGINS)
_EPS = 1e-6  # distance kept from a cosine of 1, where the slope of the angle is infinite


class CosineLinear(nn.Linear):
    """Scaled cosines, scale · w·x / (‖w‖ ‖x‖): (B, in_features) -> (B, out_features), each in [-scale, scale].

    Luo et al., "Cosine Normalization: Using Cosine Similarity Instead of Dot Product in Neural Networks", 2017. The
    scale is one learnable number, since a softmax over bare cosines cannot come near 1. A zero vector gives 0.

    Args:
        in_features: Width of the feature vector.
        out_features: Number of identities.
        scale: Initial value of the learnable scale.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 16.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.initial_scale = float(scale)
        self.scale = nn.Parameter(torch.empty(()))
        _initialize(self)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            features: (B, in_features) float32.

        Returns:
            (B, out_features) float32.
        """
        unit, directions = functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1)
        return self.scale * functional.linear(unit, directions)


class MarginLinear(nn.Linear):
    """Scaled cosines with a margin for the true identity, (B, in_features) -> (B, out_features).

    The logits are scale · cos θ. In training the true identity's is scale · cos(θ + margin) for "arcface" (Deng et al.
    2019) or scale · (cos θ - margin) for "cosface" (Wang et al. 2018).

    Args:
        in_features: Width of the feature vector.
        out_features: Number of identities.
        name: "arcface" or "cosface".
        scale: Fixed scale of the cosines.
        margin: Angle in radians for "arcface", difference of cosines for "cosface".
    """

    def __init__(self, in_features: int, out_features: int, name: str, scale: float, margin: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.name, self.scale, self.margin = name, scale, margin
        _initialize(self)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the logits.

        Args:
            features: (B, in_features) float32.
            labels: (B,) int64, the true identities; None, as in evaluation, applies no margin.

        Returns:
            (B, out_features) float32.
        """
        unit, directions = functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1)
        cosines = functional.linear(unit, directions)
        if labels is not None:
            true = cosines.gather(1, labels[:, None]).clamp(-1 + _EPS, 1 - _EPS)
            cosines = cosines.scatter(1, labels[:, None], _MARGIN_FUNCTIONS[self.name](true, self.margin))
        return self.scale * cosines

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            The settings shown by `repr`.
        """
        return f"{super().extra_repr()}, {self.name}, scale={self.scale}, margin={self.margin}"


def build_classifier(name: str, d_in: int, num_classes: int, *, scale: float = 16.0, margin: float = 0.0) -> nn.Linear:
    """Build a classifier, (B, d_in) -> logits (B, num_classes).

    Args:
        name: One of `CLASSIFIERS`. "linear" starts from N(0, 0.01) with zero bias.
        d_in: Input width, the Eigenlayer's output.
        num_classes: Number of identities.
        scale: Factor of the cosines; "cosine" learns it, "arcface" and "cosface" keep it.
        margin: Margin of "arcface" or "cosface"; 0 for the paper's.

    Returns:
        Classifier on the CPU.

    Raises:
        InputError: If the name is unknown, or a size is not a whole number above 0.
    """
    if name not in CLASSIFIERS:
        raise unknown_name("classifier", name, CLASSIFIERS)
    check_count("the input width of a classifier", d_in)
    check_count("the number of classes", num_classes)
    if name in MARGINS:
        return MarginLinear(d_in, num_classes, name, scale, margin or MARGINS[name])
    if name == "cosine":
        return CosineLinear(d_in, num_classes, scale)
    layer = nn.Linear(d_in, num_classes)
    _initialize(layer)
    return layer


def reset_classifier(classifier: nn.Linear, *, seed: int) -> None:
    """Give a classifier new initial values, as if it had just been built.

    Args:
        classifier: A classifier of `build_classifier`, changed in place.
        seed: Decides the values.
    """
    fresh = copy.deepcopy(classifier).cpu()
    _initialize(fresh, torch.Generator().manual_seed(seed))
    classifier.load_state_dict(fresh.state_dict())


@torch.no_grad()
def _initialize(layer: nn.Linear, generator: torch.Generator | None = None) -> None:
    if isinstance(layer, CosineLinear | MarginLinear):
        # One step rotates a short vector by a large angle, so the initial lengths are about 1.
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
    else:
        nn.init.normal_(layer.weight, std=0.01, generator=generator)
        nn.init.zeros_(layer.bias)
    if isinstance(layer, CosineLinear):
        layer.scale.fill_(layer.initial_scale)


def _arcface(cosines: Tensor, margin: float) -> Tensor:
    """Return cos(θ + margin); past θ = π - margin, where that would rise again, a line that goes on falling."""
    angles = cosines.acos()
    return torch.where(angles <= math.pi - margin, (angles + margin).cos(), angles.cos() - margin * math.sin(margin))


def _cosface(cosines: Tensor, margin: float) -> Tensor:
    return cosines - margin


_MARGIN_FUNCTIONS = {"arcface": _arcface, "cosface": _cosface}
