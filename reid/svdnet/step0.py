"""Step 0: train the whole network, Eigenlayer included, until it has converged."""

from __future__ import annotations

from reid.records import StageLog
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.schedule import StagePlan
from reid.training.stage import train_stage
from reid.training.state import Batches, TrainState


def run(state: TrainState, loader: Batches, plan: Plan, callbacks: Callbacks) -> StageLog:
    """Run Step 0 of Sun et al. 2017, Section 3.2.

    Args:
        state: The state of the run, updated in place.
        loader: The training data.
        plan: The settings of the run.
        callbacks: Called after every step, epoch and stage.

    Returns:
        The record of the stage.
    """
    return train_stage(state, loader, StagePlan("step0", 0, plan.step0), plan.solver, callbacks)
