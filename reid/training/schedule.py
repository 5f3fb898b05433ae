"""How long a stage trains, at which rate, and what stays frozen meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The plan of one kind of stage.

    epochs: passes over the training set. lr: one rate a round, the last repeated. schedule: "constant", "step" (times
    `gamma` at each of `milestones`, fractions of the stage) or "cosine" (to zero). warmup_epochs: linear rise from a
    hundredth of the rate. freeze: beginnings of parameter names, or "norm". settle_epochs: end early once the epoch's
    training loss has not fallen by the fraction `settle_tolerance` for so many epochs; 0 never ends early.
    optimizer: of this stage, "" for the one that all stages share. lr_factors: beginnings of parameter names, and what
    the rate of those parameters is multiplied by.
    """

    epochs: int
    lr: tuple[float, ...]
    schedule: str = "constant"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    freeze: tuple[str, ...] = ()
    settle_epochs: int = 0
    settle_tolerance: float = 0.01
    optimizer: str = ""
    lr_factors: tuple[tuple[str, float], ...] = ()

    def base_lr(self, round: int) -> float:
        """The rate of a round; rounds count from 1, Step 0 is round 0 and takes the first rate."""
        return self.lr[min(max(round, 1), len(self.lr)) - 1]

    def factor(self, epoch: float) -> float:
        """What the base rate is multiplied by, `epoch` epochs (with fraction) into the stage."""
        progress = epoch / self.epochs
        if epoch < self.warmup_epochs:
            return 0.01 + 0.99 * epoch / self.warmup_epochs
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "step":
            return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        return 1.0

    def settled(self, losses: Sequence[float]) -> bool:
        """Whether the training loss of the last `settle_epochs` epochs shows no further fall."""
        n = self.settle_epochs
        if not n or len(losses) <= n:
            return False
        return min(losses[-n:]) > min(losses[:-n]) * (1 - self.settle_tolerance)
