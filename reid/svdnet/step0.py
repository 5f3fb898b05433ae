"""Step 0: train the whole network, Eigenlayer included, until it has converged."""

from __future__ import annotations

from reid.records import StageLog
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.stage import train_stage
from reid.training.state import Batches, Hooks, TrainState


def run(state: TrainState, loader: Batches, *, schedule: Schedule, solver: Solver, hooks: Hooks) -> StageLog:
    """Step 0 of Sun et al. 2017, Section 3.2."""
    return train_stage(state, loader, stage="step0", round=0, schedule=schedule, solver=solver, hooks=hooks)
