"""Generalized-mean pooling: Radenović, Tolias, Chum, TPAMI 2018.

"Fine-tuning CNN Image Retrieval with No Human Annotation".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.model.pooling.contract import Pooling

_FLOOR = 1e-6


class GeM(Pooling):
    """Generalized mean over positions, (mean of x^p)^(1/p), with x clamped to at least 1e-6.

    p = 1 is the average, p -> infinity the maximum.

    Args:
        channels: Number of channels C.
        p: Initial exponent, above 0.
        p_per_channel: Use one exponent per channel instead of one for all.
        p_learnable: Train the exponent.
        l2: Normalize the result to unit length.

    Raises:
        InputError: If `p` is not a finite number above 0.
    """

    p: Tensor

    def __init__(
        self, channels: int, *, p: float = 3.0, p_per_channel: bool = False, p_learnable: bool = True, l2: bool = False
    ) -> None:
        super().__init__(channels, l2=l2)
        add_exponent(self, channels, p=p, p_per_channel=p_per_channel, p_learnable=p_learnable)

    def _pool(self, maps: Tensor) -> Tensor:
        return generalized_mean(maps, self.p)


def generalized_mean(maps: Tensor, p: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """Compute (sum over positions of w x^p)^(1/p) of x = max(maps, 1e-6).

    Args:
        maps: (B, C, h, w) floating.
        p: Exponent, (1,) or (C,).
        log_weights: ln w, (B, h, w), with the w of an image summing to 1; None for 1 / (h w) everywhere.

    Returns:
        (B, C), same dtype as `maps`.
    """
    # In logarithms no power overflows, however large p grows.
    powers = maps.clamp(min=_FLOOR).log() * p[:, None, None]
    uniform = -math.log(maps.shape[2] * maps.shape[3])
    powers = powers + (uniform if log_weights is None else log_weights[:, None])
    return (powers.flatten(2).logsumexp(2) / p).exp()


def add_exponent(module: nn.Module, channels: int, *, p: float, p_per_channel: bool, p_learnable: bool) -> None:
    """Add the exponent `p` to a module, (channels,) or (1,).

    Args:
        module: Module that gets the parameter or buffer `p`.
        channels: Number of channels.
        p: Initial value of every exponent, above 0.
        p_per_channel: Add one exponent per channel instead of one for all.
        p_learnable: Add a parameter instead of a buffer.

    Raises:
        InputError: If `p` is not a finite number above 0.
    """
    if not 0 < p < math.inf:
        raise InputError(f"the exponent p = {p} of a generalized mean must be above 0: 1 is the average, 3 is usual")
    start = torch.full((channels if p_per_channel else 1,), float(p))
    if p_learnable:
        module.p = nn.Parameter(start)
    else:  # not a parameter, since a stage unfreezes every parameter that it does not freeze by name
        module.register_buffer("p", start)
