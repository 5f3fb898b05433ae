"""Center loss: Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition", 2016."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """Mean over the batch of ½ ‖x - c_y‖² (Eq. 2, which sums); the centers follow the features by Eq. 3 and 4.

    c_j moves by rate · Σ (x - c_j) / (1 + n_j) over the n_j features of identity j in the batch: by that rule alone, no
    optimizer. The centers, (classes, width) float32, start at 0 and move only in training mode.
    """

    centers: Tensor

    def __init__(self, classes: int, width: int, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centers", torch.zeros(classes, width))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features: (B, width) floating; labels: (B,) int64 in [0, classes). A float32 scalar."""
        away = features.float() - self.centers[labels]
        if self.training and torch.is_grad_enabled():
            self._follow(away.detach(), labels)
        return away.square().sum(1).mean() / 2

    @torch.no_grad()
    def _follow(self, away: Tensor, labels: Tensor) -> None:
        total = torch.zeros_like(self.centers).index_add_(0, labels, away)
        count = torch.bincount(labels, minlength=len(self.centers))
        self.centers += self.rate * total / (1 + count[:, None])
