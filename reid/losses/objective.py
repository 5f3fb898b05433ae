"""What a stage minimizes: a weighted sum of losses and, where wanted, a penalty on the Eigenlayer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from reid.losses.center import CenterLoss
from reid.losses.identity import identity_loss
from reid.losses.orthogonality import PENALTIES
from reid.losses.pairwise import check_metric_learning, circle_loss, contrastive_loss, triplet_loss


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss, 0 for none, and its own numbers, as the functions name them.

    feature: "input" or "output", the side of the Eigenlayer whose features the losses other than the identity's
    compare. tuple_size: of the batches that contrastive pairs come from, 0 for every pair of a batch. penalty: a name
    in PENALTIES, or "none". penalty_steps: (part of a stage, factor): from that part on the penalty's weight is
    multiplied by that factor.
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
    """The weighted terms of a batch by name; their sum is what is minimized.

    classes, width: of the center loss, the identities and the length of the compared feature. Its state, the centers,
    goes into checkpoints beside the network's. Raises InputError where a loss needs a library that is missing.
    """

    def __init__(self, weights: LossWeights | None = None, *, classes: int = 0, width: int = 0) -> None:
        super().__init__()
        self.weights = weights or LossWeights()
        self.center = CenterLoss(classes, width, self.weights.center_rate) if self.weights.center else None
        if self.weights.circle:
            check_metric_learning("LOSS.CIRCLE")

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
        """logits: (B, C). labels: (B,) int64. input, output: of the Eigenlayer, (B, D_in) and (B, K). vectors: W.

        progress: the part of the stage that is done, in [0, 1]. tuples: False where the batch is not made of tuples,
        so that every pair of it counts. Returns float32 scalars.
        """
        return dict(self._terms(logits, labels, {"input": input, "output": output}, vectors, progress, tuples))

    def _terms(
        self,
        logits: Tensor,
        labels: Tensor,
        features: dict[str, Tensor],
        vectors: Tensor,
        progress: float,
        tuples: bool,
    ) -> Iterator[tuple[str, Tensor]]:
        w, compared = self.weights, features[self.weights.feature]
        if w.identity:
            yield "identity", w.identity * identity_loss(logits, labels, label_smoothing=w.label_smoothing)
        if w.triplet:
            yield "triplet", w.triplet * triplet_loss(compared, labels, margin=w.triplet_margin)
        if w.contrastive:
            group = w.tuple_size if tuples else 0
            loss = contrastive_loss(compared, labels, tau=w.contrastive_tau, group=group)
            yield "contrastive", w.contrastive * loss
        if w.circle:
            loss = circle_loss(compared, labels, margin=w.circle_margin, scale=w.circle_scale)
            yield "circle", w.circle * loss
        if self.center is not None:
            yield "center", w.center * self.center(compared, labels)
        if w.penalty != "none":
            factors = [factor for part, factor in w.penalty_steps if progress >= part]
            weight = w.penalty_weight * (factors[-1] if factors else 1.0)
            if weight:
                yield w.penalty, weight * PENALTIES[w.penalty](vectors)
