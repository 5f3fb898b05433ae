"""The Restraint-and-Relaxation Iteration, and the control it is measured against."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from reid.data.loading.loaders import TrainLoader
from reid.decorrelation.convergence import converged
from reid.records import StageLog
from reid.svdnet import decorrelate, relaxation, restraint
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.state import TrainState


def run(state: TrainState, loader: TrainLoader, plan: Plan, callbacks: Callbacks) -> str:
    """Run rounds of decorrelation, Restraint and Relaxation until S(W) after Relaxation stops rising.

    Stages that `state` holds as finished are not repeated, and an unfinished one continues where it was interrupted.

    Args:
        state: The state of the run after Step 0, updated in place.
        loader: The training data.
        plan: The settings of the run.
        callbacks: Called after every step, epoch and stage.

    Returns:
        Why the iteration stopped: "converged" or "max_rounds".
    """
    stopped, rounds = "max_rounds", 0
    for round in range(1, plan.max_rounds + 1):
        decorrelate.run(state, loader, plan, callbacks, round=round)
        restraint.run(state, loader, plan, callbacks, round=round)
        relaxation.run(state, loader, plan, callbacks, round=round)
        rounds = round
        history = correlation_history(state.rows, up_to=round)
        if converged(history, tolerance=plan.tolerance, patience=plan.patience):
            stopped = "converged"
            break
    if plan.final_restraint:
        decorrelate.run(state, loader, plan, callbacks, round=rounds + 1)
        restraint.run(state, loader, plan, callbacks, round=rounds + 1)
    return stopped


def run_control(
    state: TrainState, loader: TrainLoader, plan: Plan, callbacks: Callbacks, original: Sequence[StageLog]
) -> None:
    """Repeat the stages of a finished run from Step 0 on, without the decorrelation or a new classifier.

    Args:
        state: The network after Step 0, updated in place.
        loader: The training data.
        plan: The settings of the original run.
        callbacks: Called after every step, epoch and stage.
        original: The rows of the finished run, whose rounds and epochs are repeated.
    """
    plan = dataclasses.replace(plan, variant="none", reset_classifier=False)
    for row in original:
        if row.stage == "decorrelate":
            decorrelate.run(state, loader, plan, callbacks, round=row.round)
        elif row.stage == "restraint":
            restraint.run(state, loader, plan, callbacks, round=row.round, epochs=row.epochs)
        elif row.stage == "relaxation":
            relaxation.run(state, loader, plan, callbacks, round=row.round, epochs=row.epochs)


def correlation_history(rows: Sequence[StageLog], *, up_to: int) -> list[float]:
    """List S(W) after each Relaxation, by which convergence is decided.

    Args:
        rows: The finished stages.
        up_to: Last round.

    Returns:
        One value in (0, 1] per round.
    """
    return [row.correlation for row in rows if row.stage == "relaxation" and row.round <= up_to]
