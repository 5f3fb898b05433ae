"""Classifiers that train with a margin on the cosine of the true identity: ArcFace and CosFace."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError

MARGINS = ("arcface", "cosface")
DEFAULT = {"arcface": 0.5, "cosface": 0.35}  # of the papers: radians, and a difference of cosines
EDGE = 1e-6  # the slope of an angle is infinite where its cosine is 1


class MarginLinear(nn.Linear):
    """scale · cos θ to every identity, (B, in_features) -> (B, out_features); with labels, the true one's made harder.

    name: "arcface", cos(θ + margin) in radians (Deng et al. 2019), or "cosface", cos θ - margin (Wang et al. 2018), as
    pytorch-metric-learning computes them. scale is fixed. Without labels, in evaluation, there is no margin. Raises
    InputError where the library is missing.
    """

    def __init__(self, in_features: int, out_features: int, name: str, scale: float, margin: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.name, self.scale, self.margin = name, scale, margin
        nn.init.normal_(self.weight, std=in_features**-0.5)
        self._harder = _harder(name, margin)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        unit, directions = functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1)
        cosines = functional.linear(unit, directions)
        if labels is not None:
            true = cosines.gather(1, labels[:, None]).clamp(-1 + EDGE, 1 - EDGE)
            cosines = cosines.scatter(1, labels[:, None], self._harder(true))
        return self.scale * cosines

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.name}, scale={self.scale}, margin={self.margin}"


def _harder(name: str, margin: float) -> Callable[[Tensor], Tensor]:
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise InputError(f"MODEL.CLASSIFIER.NAME {name} needs pytorch-metric-learning: pip install 'reid[losses]'")
    from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss

    # Only what the library does to a cosine is used: its own weights would stand beside the classifier's.
    with torch.random.fork_rng(devices=[]):
        if name == "arcface":
            loss = ArcFaceLoss(num_classes=1, embedding_size=1, margin=math.degrees(margin))
        else:
            loss = CosFaceLoss(num_classes=1, embedding_size=1, margin=margin)
    harder: Callable[[Tensor], Tensor] = loss.modify_cosine_of_target_classes
    return harder
