"""The course of an RRI run as settings."""

from __future__ import annotations

from dataclasses import dataclass

from reid.model.network import ReidNetwork
from reid.training.optimizer import Solver, freeze, lr_factors_by_name
from reid.training.schedule import Schedule


@dataclass(frozen=True)
class Plan:
    """The schedules of the stages, the decorrelation, and when the iteration stops.

    Attributes:
        step0: Schedule of Step 0.
        restraint: Schedule of every Restraint.
        relaxation: Schedule of every Relaxation.
        solver: Settings that all stages share.
        variant: What replaces W: one of `reid.decorrelation.VARIANTS`.
        order: Order of the new columns: one of `reid.decorrelation.ORDERS`.
        reset_classifier: Whether to start a new classifier at each decorrelation.
        freeze_eigenlayer: Whether Restraint keeps the Eigenlayer fixed. Without, it is the replacement alone.
        skip_step0: Whether the network has been trained already, so that Step 0 is only evaluated.
        rotate_classifier: Whether to rotate the classifier with W, so that the logits do not change.
        max_rounds: Largest number of rounds.
        patience: Rounds without a rise of S(W) after which the iteration has converged.
        tolerance: Minimum rise of S(W) to count as progress.
        final_restraint: Whether to decorrelate once more after the last round, followed by a Restraint.
        loss_images: Training images on which the loss before and after a replacement is measured.
    """

    step0: Schedule
    restraint: Schedule
    relaxation: Schedule
    solver: Solver
    variant: str = "US"
    order: str = "assignment"
    rotate_classifier: bool = False
    reset_classifier: bool = False
    freeze_eigenlayer: bool = True
    skip_step0: bool = False
    max_rounds: int = 7
    patience: int = 1
    tolerance: float = 0.01
    final_restraint: bool = False
    loss_images: int = 4096

    @property
    def least_epochs(self) -> int:
        """The epochs of Step 0 and of one round, where there are any."""
        epochs = 0 if self.skip_step0 else self.step0.epochs
        return epochs + (self.restraint.epochs + self.relaxation.epochs if self.max_rounds else 0)

    @property
    def restraint_freeze(self) -> tuple[str, ...]:
        """What every Restraint freezes besides the parameters that its schedule names."""
        return ("eigenlayer",) if self.freeze_eigenlayer else ()


def check_parameter_names(plan: Plan, model: ReidNetwork) -> None:
    """Check before training that every freeze and learning rate factor names a parameter.

    Args:
        plan: The settings.
        model: The network; which parameters require a gradient is changed.

    Raises:
        InputError: If one does not, or a freeze leaves nothing to train.
    """
    for schedule in (plan.step0, plan.restraint, plan.relaxation):
        lr_factors_by_name(model, schedule.lr_factors)
    freeze(model, plan.step0.freeze)
    freeze(model, (*plan.restraint.freeze, *plan.restraint_freeze))
    freeze(model, plan.relaxation.freeze)
