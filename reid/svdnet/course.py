"""How far a training has come, of what is still planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reid.records import StageLog
from reid.svdnet.plan import Plan


@dataclass(frozen=True)
class Course:
    """The position of a training.

    Attributes:
        stage: Number of the running stage, from 1; `stages` at the end too.
        stages: Stages of the run and its control, at most.
        epoch: Finished epochs.
        epochs: Epochs of all stages, at most.
        exact: Whether `stages` is known, rather than a maximum: an iteration that converges ends early.
    """

    stage: int
    stages: int
    epoch: int
    epochs: int
    exact: bool


def locate(
    plan: Plan, rows: Sequence[StageLog], epoch: int, *, control: Sequence[StageLog] | None, ended: bool
) -> Course:
    """Count the stages and epochs of a training.

    Args:
        plan: Settings of the run.
        rows: Finished stages of the RRI run.
        epoch: Finished epochs of the running stage.
        control: Finished stages of its control, the first of which is Step 0 of the run; None if there is no control.
        ended: Whether the RRI run has ended.

    Returns:
        The position. Stages that are not finished count with the epochs of their schedule.
    """
    restraint, relaxation = plan.restraint.epochs, plan.relaxation.epochs
    planned = [plan.step0.epochs, *(0, restraint, relaxation) * plan.max_rounds]
    planned += [0, restraint] if plan.final_restraint else []
    epochs = [row.epochs for row in rows]
    done = list(epochs)
    if not ended:
        epochs += planned[len(rows) :]
    if control is not None:
        epochs += epochs[1:]
        done += [row.epochs for row in control[1:]]
    return Course(
        stage=min(len(done) + 1, len(epochs)),
        stages=len(epochs),
        epoch=sum(done) + epoch,
        epochs=sum(epochs),
        exact=ended or not plan.max_rounds,
    )
