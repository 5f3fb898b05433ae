"""From a map of activations to one vector an image.

A pooling is built by a function `(channels, **options) -> Pooling` from maps (B, channels, h, w) to (B, width) float32;
OPTIONS says which options it has.
"""

from __future__ import annotations

from collections.abc import Callable

from reid.model.pooling.contract import Pooling as Pooling
from reid.model.pooling.crow import CroW
from reid.model.pooling.gem import GeM
from reid.model.pooling.plain import Average, AverageMax, Max
from reid.model.pooling.rmac import RMAC
from reid.model.pooling.vlad import HardVLAD, NetVLAD, ghost_vlad
from reid.model.pooling.weighted_gem import RegionalWeightedGeM, WeightedGeM, WeightedSum

POOLINGS: dict[str, Callable[..., Pooling]] = {
    "average": Average,
    "max": Max,
    "average_max": AverageMax,
    "gem": GeM,
    "weighted_gem": WeightedGeM,
    "weighted_sum": WeightedSum,
    "regional_weighted_gem": RegionalWeightedGeM,
    "crow": CroW,
    "rmac": RMAC,
    "hard_vlad": HardVLAD,
    "netvlad": NetVLAD,
    "ghost_vlad": ghost_vlad,
}

_EXPONENT = ("p", "p_per_channel", "p_learnable")

OPTIONS: dict[str, tuple[str, ...]] = {
    "average": ("l2",),
    "max": ("l2",),
    "average_max": ("l2",),
    "gem": (*_EXPONENT, "l2"),
    "weighted_gem": (*_EXPONENT, "l2"),
    "weighted_sum": ("l2",),
    "regional_weighted_gem": ("regions", *_EXPONENT, "l2"),
    "crow": ("l2",),
    "rmac": ("levels", "l2"),
    "hard_vlad": ("clusters", "init"),
    "netvlad": ("clusters", "init"),
    "ghost_vlad": ("clusters", "ghosts", "init"),
}
