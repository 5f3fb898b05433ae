"""Cross-dimensional weighting: Kalantidis, Mellina, Osindero, ECCV workshops 2016.

"Cross-dimensional Weighting for Aggregated Deep Convolutional Features".
"""

from __future__ import annotations

import torch
from torch import Tensor

from reid.model.pooling.contract import Pooling

_FLOOR = 1e-6


class CroW(Pooling):
    """Sum over positions of s x, times a weight per channel; nothing is learned.

    s = sqrt(S / ||S||), S the sum over the channels at a position (a = b = 2 of the paper); the fourth powers of s sum
    to 1. The weight of a channel is ln(sum of q / q), q its fraction of non-zero values in this image, and 0 if it has
    none. Gradients flow through s, not through the counts. S is clamped to at least 1e-6, since the gradient of
    sqrt is infinite at 0.
    """

    def _pool(self, maps: Tensor) -> Tensor:
        nonzero = (maps != 0).to(maps.dtype).mean((2, 3))
        total = nonzero.sum(1, keepdim=True)
        rarity = torch.where(nonzero > 0, (total / nonzero.clamp(min=_FLOOR)).clamp(min=1).log(), 0)
        return (maps * self._attention(maps)[:, None]).sum((2, 3)) * rarity

    def _attention(self, maps: Tensor) -> Tensor:
        sums = maps.sum(1).clamp(min=_FLOOR)
        return (sums / torch.linalg.vector_norm(sums, dim=(1, 2), keepdim=True)).sqrt()
