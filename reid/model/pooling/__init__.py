"""Poolings: feature maps (B, C, h, w) -> one vector per image (B, width) float32.

A pooling is built by a function `(channels, *, **options) -> Pooling` listed in `POOLINGS`; its keyword arguments are
the options it has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from reid.errors import InputError, check_count, unknown_name
from reid.model.pooling.contract import Pooling as Pooling
from reid.model.pooling.crow import CroW
from reid.model.pooling.flatten import Flatten
from reid.model.pooling.gem import GeM
from reid.model.pooling.plain import Average, AverageMax, Max
from reid.model.pooling.rmac import RMAC
from reid.model.pooling.vlad import HardVLAD, NetVLAD, net_vlad
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
    "netvlad": net_vlad,
    "ghost_vlad": partial(NetVLAD, ghosts=1),
}


def build_pooling(name: str, backbone: nn.Module, **options: Any) -> Pooling:
    """Build a pooling for the feature maps of a backbone.

    Args:
        name: A key of `POOLINGS`, or "flatten" for a backbone whose maps have one size.
        backbone: Module with the attribute `out_channels`, and `map_size` for "flatten".
        **options: Keyword arguments of the pooling, see `pooling_options`.

    Returns:
        Pooling (B, C, h, w) -> (B, width(C)), on the CPU.

    Raises:
        InputError: If the name is unknown, an option is unknown, of another type or out of range, or "flatten" follows
            a backbone with maps of any size.
    """
    if name == "flatten":
        size: tuple[int, int] | None = getattr(backbone, "map_size", None)
        if size is None:
            raise InputError(
                "flattening needs feature maps of one size, and this backbone's have any size; set "
                "MODEL.POOLING.NAME to another pooling"
            )
        channels: Any = backbone.out_channels
        return Flatten(channels, size=size)
    if name not in POOLINGS:
        raise unknown_name("pooling", name, (*POOLINGS, "flatten"))
    _check_options(name, options)
    return POOLINGS[name](backbone.out_channels, **options)


def _check_options(name: str, options: dict[str, Any]) -> None:
    """Check names and types of options by the defaults of the pooling."""
    parameters = inspect.signature(POOLINGS[name]).parameters
    for option, value in options.items():
        if option not in pooling_options(name):
            raise unknown_name(f"option of the pooling {name}", option, pooling_options(name) or ("no options",))
        kind = type(parameters[option].default)
        if kind is int:
            check_count(f"{option} of the pooling {name}", value, minimum=0)
        elif kind is float and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise InputError(f"{option} of the pooling {name} must be a number, not {value!r}")


def pooling_options(name: str) -> tuple[str, ...]:
    """List the options of a pooling.

    Args:
        name: A key of `POOLINGS`, or "flatten", which has none.

    Returns:
        Names of the keyword arguments that `build_pooling` accepts for it.
    """
    if name not in POOLINGS:
        return ()
    parameters = inspect.signature(POOLINGS[name]).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
