"""Restraint: the decorrelated Eigenlayer stands still while everything else adapts to it."""

from __future__ import annotations

import torch

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
    """Restraint of Sun et al. 2017, Section 3.2. The Eigenlayer is bit-identical before and after, which is checked."""
    before = {name: tensor.clone() for name, tensor in state.model.eigenlayer.state_dict().items()}
    row = train_stage(
        state,
        loader,
        stage="restraint",
        round=round,
        schedule=schedule,
        solver=solver,
        hooks=hooks,
        also_frozen=("eigenlayer",),
        stop_after=stop_after,
    )
    after = state.model.eigenlayer.state_dict()
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if moved:
        raise RuntimeError(f"Restraint moved the frozen Eigenlayer: {', '.join(moved)}")
    return row
