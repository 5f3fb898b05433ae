"""Identity classification: the softmax loss that every stage of SVDNet trains with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from reid.losses.checks import check_batch


def identity_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy over the batch.

    Args:
        logits: (B, C) floating.
        labels: (B,) int64 in [0, C).
        label_smoothing: ε in [0, 1); the target is 1 - ε on the true identity plus ε / C on each (Szegedy et al. 2016,
            Eq. 7-8).

    Returns:
        Loss in nats, a float32 scalar.

    Raises:
        InputError: If logits and labels are not those of one batch.
    """
    check_batch(logits, labels, "logits")
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
