"""Relaxation: the Eigenlayer is released and trains with the rest for some epochs."""

from __future__ import annotations

from reid.data.loading.loaders import TrainLoader
from reid.records import StageLog
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.schedule import StagePlan
from reid.training.stage import train_stage
from reid.training.state import TrainState


def run(
    state: TrainState, loader: TrainLoader, plan: Plan, callbacks: Callbacks, *, round: int, epochs: int | None = None
) -> StageLog:
    """Run a Relaxation of Sun et al. 2017, Section 3.2; `plan.relaxation.freeze` may keep part of the network frozen.

    Args:
        state: The state of the run, updated in place.
        loader: The training data.
        plan: The settings of the run.
        callbacks: Called after every step, epoch and stage.
        round: From 1.
        epochs: See `reid.training.schedule.StagePlan`.

    Returns:
        The record of the stage.
    """
    stage = StagePlan("relaxation", round, plan.relaxation, epochs=epochs)
    return train_stage(state, loader, stage, plan.solver, callbacks)
