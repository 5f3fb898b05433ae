"""Cross-dimensional weighting: Kalantidis, Mellina, Osindero, "Cross-dimensional Weighting for Aggregated Deep
Convolutional Features", ECCV workshops 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reid.model.pooling.contract import Pooling

FLOOR = 1e-6


class CroW(Pooling):
    """The sum over places of s x, times a weight for each channel; nothing is learned.

    s = sqrt(S / ||S||), S the sum over the channels at a place (a = b = 2 of the paper). A channel weighs
    ln(sum of q / q), q its fraction of non-zero values in this image, and 0 where it has none. Gradients pass through
    s, not through the counts; a place whose S lies below 1e-6 counts as 1e-6 there, the root having no slope at 0.
    """

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(l2=l2)

    def pool(self, maps: Tensor) -> Tensor:
        filled = (maps != 0).to(maps.dtype).mean((2, 3))
        total = filled.sum(1, keepdim=True)
        rarity = torch.where(filled > 0, (total / filled.clamp(min=FLOOR)).clamp(min=1).log(), 0)
        return (maps * self.weights(maps)[:, None]).sum((2, 3)) * rarity

    def weights(self, maps: Tensor) -> Tensor:
        """s, (B, h, w), at most 1; its fourth powers sum to 1."""
        places = maps.sum(1).clamp(min=FLOOR)
        return (places / torch.linalg.vector_norm(places, dim=(1, 2), keepdim=True)).sqrt()
