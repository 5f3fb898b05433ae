"""Center loss: Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition", 2016."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid.errors import InputError, check_count
from reid.losses.checks import check_batch


class CenterLoss(nn.Module):
    """Mean over the batch of ½ ‖x - c_y‖² (Eq. 2, which sums); the centers follow the features by Eq. 3 and 4.

    c_j moves by alpha · Σ (x - c_j) / (1 + n_j) over the n_j features of identity j in the batch, by this rule
    and without an optimizer. The centers, (num_classes, width) float32, start at 0 and move only in training mode.

    Args:
        num_classes: Number of identities.
        width: Width of the features.
        alpha: Learning rate of the centers.

    Raises:
        InputError: If a size is not a whole number above 0.
    """

    # The name is part of checkpoints.
    centers: Tensor

    def __init__(self, num_classes: int, width: int, alpha: float = 0.5) -> None:
        super().__init__()
        check_count("num_classes of the center loss", num_classes)
        check_count("width of the center loss", width)
        self.alpha = alpha
        self.register_buffer("centers", torch.zeros(num_classes, width))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss, and in training move the centers.

        Args:
            features: (B, width) floating.
            labels: (B,) int64 in [0, num_classes).

        Returns:
            Loss, a float32 scalar.

        Raises:
            InputError: If features and labels are not those of a batch of this width.
        """
        check_batch(features, labels)
        if features.shape[1] != self.centers.shape[1]:
            raise InputError(f"features of {features.shape[1]} dimensions and centers of {self.centers.shape[1]}")
        offsets = features.float() - self.centers[labels]
        if self.training and torch.is_grad_enabled():
            self._update_centers(offsets.detach(), labels)
        return offsets.square().sum(1).mean() / 2

    @torch.no_grad()
    def _update_centers(self, offsets: Tensor, labels: Tensor) -> None:
        total = torch.zeros_like(self.centers).index_add_(0, labels, offsets)
        count = torch.bincount(labels, minlength=len(self.centers))
        self.centers += self.alpha * total / (1 + count[:, None])
