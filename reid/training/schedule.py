"""How long a stage trains, at which learning rate, and what stays frozen meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The settings of one kind of stage.

    Attributes:
        epochs: Passes over the training set.
        lr: Base learning rate of each round; later rounds repeat the last one.
        schedule: "constant", "step" (times `gamma` at each milestone) or "cosine" (to zero).
        milestones: Fractions of the stage, in (0, 1).
        gamma: Factor of each milestone.
        warmup_epochs: Length of a linear rise from a hundredth of the learning rate.
        freeze: Prefixes of parameter names, or "norm"; see `reid.training.optimizer.freeze`.
        settle_epochs: End the stage early once the training loss has not fallen for this many epochs; 0 never does.
        settle_tolerance: Minimum relative decrease of the loss to count as progress.
        optimizer: Name of the optimizer; "" for the one of the solver.
        lr_factors: Pairs of a prefix of parameter names and the factor of their learning rate.
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
        """Return the base learning rate of a round.

        Args:
            round: Counts from 1; Step 0 is round 0 and takes the first learning rate.

        Returns:
            The learning rate before warm-up and decay.
        """
        return self.lr[min(max(round, 1), len(self.lr)) - 1]

    def factor(self, epoch: float) -> float:
        """Return the factor of the base learning rate at one moment of the stage.

        Args:
            epoch: Epochs since the start of the stage, with fraction.

        Returns:
            The factor, in [0, 1].
        """
        progress = epoch / self.epochs
        if epoch < self.warmup_epochs:
            return 0.01 + 0.99 * epoch / self.warmup_epochs
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "step":
            return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        return 1.0

    def settled(self, losses: Sequence[float]) -> bool:
        """Tell whether the training loss has stopped falling.

        Args:
            losses: Mean training loss of each epoch of the stage so far.

        Returns:
            True when the last `settle_epochs` epochs brought no fall by `settle_tolerance`.
        """
        n = self.settle_epochs
        if not n or len(losses) <= n:
            return False
        return min(losses[-n:]) > min(losses[:-n]) * (1 - self.settle_tolerance)


@dataclass(frozen=True)
class StagePlan:
    """One stage of one round.

    Attributes:
        name: "step0", "restraint" or "relaxation".
        round: 0 for Step 0, then from 1.
        schedule: The settings of this kind of stage.
        freeze: Prefixes of parameter names that stay frozen beside those of the schedule.
        epochs: Train exactly this many epochs of the schedule and ignore the loss, as a control does whose original
            ended there; None for the schedule's own end.
    """

    name: str
    round: int
    schedule: Schedule
    freeze: tuple[str, ...] = ()
    epochs: int | None = None

    @property
    def last_epoch(self) -> int:
        """The number of epochs, unless the loss settles before."""
        return self.epochs or self.schedule.epochs

    def finished(self, losses: Sequence[float]) -> bool:
        """Tell whether the stage is over.

        Args:
            losses: Mean training loss of each epoch of the stage so far.

        Returns:
            True after the last epoch, or when the training loss has settled.
        """
        return len(losses) >= self.last_epoch or (self.epochs is None and self.schedule.settled(losses))
