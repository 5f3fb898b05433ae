"""Relaxation: the Eigenlayer is released and trains with the rest for some epochs."""

from __future__ import annotations

from reid.records import StageLog
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.stage import train_stage
from reid.training.state import Batches, Hooks, TrainState


def run(
    state: TrainState,
    loader: Batches,
    *,
    round: int,
    schedule: Schedule,
    solver: Solver,
    hooks: Hooks,
    stop_after: int | None = None,
) -> StageLog:
    """Relaxation of Sun et al. 2017, Section 3.2; `schedule.freeze` may hold part of the network still."""
    return train_stage(
        state,
        loader,
        stage="relaxation",
        round=round,
        schedule=schedule,
        solver=solver,
        hooks=hooks,
        stop_after=stop_after,
    )
