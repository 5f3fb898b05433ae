"""The Restraint-and-Relaxation Iteration, and the control it is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reid.model.network import ReidNetwork
from reid.records import StageLog
from reid.svdnet import decorrelate, relaxation, restraint, step0
from reid.svdnet.convergence import converged
from reid.training.optimizer import Solver, freeze, rate_factors
from reid.training.schedule import Schedule
from reid.training.state import Batches, Hooks, TrainState


@dataclass(frozen=True)
class Plan:
    """How a run goes: the schedules of its stages, the replacement, and when it stops."""

    step0: Schedule
    restraint: Schedule
    relaxation: Schedule
    solver: Solver
    variant: str = "US"
    order: str = "assignment"
    rotate_classifier: bool = False
    max_rounds: int = 7
    patience: int = 1
    tolerance: float = 0.01
    final_restraint: bool = False
    loss_images: int = 4096


def check_freezes(plan: Plan, model: ReidNetwork) -> None:
    """Find a freeze or factor that names no parameter before hours of training led to it. Raises InputError."""
    for schedule in (plan.step0, plan.restraint, plan.relaxation):
        rate_factors(model, schedule.lr_factors)
    freeze(model, plan.step0.freeze)
    freeze(model, (*plan.restraint.freeze, "eigenlayer"))
    freeze(model, plan.relaxation.freeze)


def run(state: TrainState, loader: Batches, plan: Plan, hooks: Hooks) -> str:
    """Step 0, then rounds of decorrelate, Restraint and Relaxation until S(W) after Relaxation has stopped rising.

    Stages that `state` holds as finished are not repeated, and an unfinished one goes on at its last epoch. Returns
    why it stopped: "converged" or "max_rounds".
    """
    if not state.done("step0", 0):
        step0.run(state, loader, schedule=plan.step0, solver=plan.solver, hooks=hooks)
    stopped = "max_rounds"
    rounds = 0
    for round in range(1, plan.max_rounds + 1):
        _round(state, loader, plan, hooks, round, variant=plan.variant)
        rounds = round
        history = correlation_history(state.rows, up_to=round)
        if converged(history, tolerance=plan.tolerance, patience=plan.patience):
            stopped = "converged"
            break
    if plan.final_restraint:
        _round(state, loader, plan, hooks, rounds + 1, variant=plan.variant, relax=False)
    return stopped


def run_control(state: TrainState, loader: Batches, plan: Plan, hooks: Hooks, original: Sequence[StageLog]) -> None:
    """Train on from Step 0 through the same stages as a finished run, without the replacement.

    state: the network after Step 0. original: the rows of the finished run, whose rounds and epochs are copied;
    schedules, freezes and fresh optimizers are the same.
    """
    epochs = {(row.stage, row.round): row.epochs for row in original}
    for round in sorted({row.round for row in original} - {0}):
        relax = ("relaxation", round) in epochs
        _round(state, loader, plan, hooks, round, variant="none", relax=relax, epochs=epochs)


def correlation_history(rows: Sequence[StageLog], *, up_to: int) -> list[float]:
    """S(W) after the Relaxation of each round up to one, the series by which convergence is judged."""
    return [row.correlation for row in rows if row.stage == "relaxation" and row.round <= up_to]


def _round(
    state: TrainState,
    loader: Batches,
    plan: Plan,
    hooks: Hooks,
    round: int,
    *,
    variant: str,
    relax: bool = True,
    epochs: dict[tuple[str, int], int] | None = None,
) -> None:
    if not state.done("decorrelate", round):
        decorrelate.run(
            state,
            loader,
            round=round,
            variant=variant,
            order=plan.order,
            rotate_classifier=plan.rotate_classifier,
            loss_images=plan.loss_images,
            solver=plan.solver,
            hooks=hooks,
        )
    for stage, train, schedule in (
        ("restraint", restraint.run, plan.restraint),
        ("relaxation", relaxation.run, plan.relaxation),
    ):
        if (stage == "relaxation" and not relax) or state.done(stage, round):
            continue
        stop_after = epochs[stage, round] if epochs else None
        train(
            state,
            loader,
            round=round,
            schedule=schedule,
            solver=plan.solver,
            hooks=hooks,
            stop_after=stop_after,
        )
