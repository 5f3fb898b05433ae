"""The training objective: a weighted sum of losses and, optionally, a penalty on the Eigenlayer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from reid.errors import InputError, unknown_name
from reid.losses.center import CenterLoss
from reid.losses.identity import identity_loss
from reid.losses.orthogonality import PENALTIES
from reid.losses.pairwise import circle_loss, contrastive_loss, triplet_loss


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss, 0 to leave it out, and its settings.

    Attributes:
        identity: Weight of the identity loss.
        label_smoothing: ε of the identity loss.
        feature: The Eigenlayer's "input" or "output", compared by all losses but the identity loss.
        triplet: Weight of the triplet loss.
        triplet_margin: Margin of the triplet loss, a Euclidean distance.
        contrastive: Weight of the contrastive loss.
        contrastive_tau: Margin τ of the contrastive loss, in [0, 2].
        tuple_size: Size of the tuples that its pairs come from, 0 for all pairs of a batch.
        circle: Weight of the circle loss.
        circle_margin: Margin m of the circle loss.
        circle_scale: Scale γ of the circle loss.
        center: Weight of the center loss.
        center_rate: Learning rate of the centers.
        penalty: A key of `PENALTIES`, or "none".
        penalty_weight: Weight of the penalty.
        penalty_steps: (progress, factor) pairs in ascending order: from that fraction of a stage on, the weight of the
            penalty is multiplied by that factor.
    """

    identity: float = 1.0
    label_smoothing: float = 0.0
    feature: str = "input"
    triplet: float = 0.0
    triplet_margin: float = 0.3
    contrastive: float = 0.0
    contrastive_tau: float = 0.7
    tuple_size: int = 0
    circle: float = 0.0
    circle_margin: float = 0.25
    circle_scale: float = 128.0
    center: float = 0.0
    center_rate: float = 0.5
    penalty: str = "none"
    penalty_weight: float = 0.0
    penalty_steps: tuple[tuple[float, float], ...] = ()


class Objective(nn.Module):
    """The weighted losses of a batch by name; training minimizes their sum.

    Its state, the centers of the center loss, is saved in checkpoints alongside the network's.

    Args:
        weights: Weight and settings of each loss; None for only the identity loss.
        num_classes: Number of identities, for the center loss.
        width: Width of the compared feature, for the center loss.

    Raises:
        InputError: If a name in `weights` is unknown.
    """

    def __init__(self, weights: LossWeights | None = None, *, num_classes: int = 0, width: int = 0) -> None:
        super().__init__()
        self.weights = weights or LossWeights()
        if not isinstance(self.weights, LossWeights):
            raise InputError(f"weights must be a LossWeights, not a {type(weights).__name__}")
        if self.weights.feature not in ("input", "output"):
            raise unknown_name("feature", self.weights.feature, ("input", "output"))
        if self.weights.penalty not in ("none", *PENALTIES):
            raise unknown_name("penalty", self.weights.penalty, ("none", *PENALTIES))
        self.center = CenterLoss(num_classes, width, self.weights.center_rate) if self.weights.center else None

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        input: Tensor,
        output: Tensor,
        vectors: Tensor,
        progress: float = 0.0,
        tuples: bool = True,
    ) -> dict[str, Tensor]:
        """Compute the weighted losses.

        Args:
            logits: (B, C) floating.
            labels: (B,) int64.
            input: The Eigenlayer's input, (B, D_in).
            output: The Eigenlayer's output, (B, K).
            vectors: The Eigenlayer's W, (D_in, K).
            progress: Completed fraction of the stage, in [0, 1].
            tuples: Whether the batch consists of tuples; if not, the contrastive loss uses all pairs.

        Returns:
            Name of each loss -> its weighted value, a float32 scalar.
        """
        w = self.weights
        compared = {"input": input, "output": output}[w.feature]
        losses = {}
        if w.identity:
            losses["identity"] = w.identity * identity_loss(logits, labels, label_smoothing=w.label_smoothing)
        if w.triplet:
            losses["triplet"] = w.triplet * triplet_loss(compared, labels, margin=w.triplet_margin)
        if w.contrastive:
            tuple_size = w.tuple_size if tuples else 0
            contrastive = contrastive_loss(compared, labels, tau=w.contrastive_tau, tuple_size=tuple_size)
            losses["contrastive"] = w.contrastive * contrastive
        if w.circle:
            circle = circle_loss(compared, labels, margin=w.circle_margin, scale=w.circle_scale)
            losses["circle"] = w.circle * circle
        if self.center is not None:
            losses["center"] = w.center * self.center(compared, labels)
        if w.penalty != "none":
            factors = [factor for start, factor in w.penalty_steps if progress >= start]
            weight = w.penalty_weight * (factors[-1] if factors else 1.0)
            losses[w.penalty] = weight * PENALTIES[w.penalty](vectors)
        return losses
