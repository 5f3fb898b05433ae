"""Restraint: the decorrelated Eigenlayer stays fixed while everything else adapts to it."""

from __future__ import annotations

import torch

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
    """Run a Restraint of Sun et al. 2017, Section 3.2.

    Args:
        state: The state of the run, updated in place.
        loader: The training data.
        plan: The settings of the run.
        callbacks: Called after every step, epoch and stage.
        round: From 1.
        epochs: See `reid.training.schedule.StagePlan`.

    Returns:
        The record of the stage.

    Raises:
        RuntimeError: If the Eigenlayer is frozen and not bit-identical before and after.
    """
    before = {name: tensor.clone() for name, tensor in state.model.eigenlayer.state_dict().items()}
    stage = StagePlan("restraint", round, plan.restraint, freeze=plan.restraint_freeze, epochs=epochs)
    row = train_stage(state, loader, stage, plan.solver, callbacks)
    after = state.model.eigenlayer.state_dict()
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if moved and plan.freeze_eigenlayer:
        raise RuntimeError(f"the frozen Eigenlayer changed during Restraint: {', '.join(moved)}")
    return row
