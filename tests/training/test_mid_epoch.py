"""A run killed in the middle of an epoch and taken up again ends as one never killed, to the last bit."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_run import callbacks, run_stages

from reid.losses.objective import LossWeights, Objective
from reid.model.network import ReidNetwork
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.state import TrainState

Make = Callable[[], ReidNetwork]
STAGE = Schedule(epochs=2, lr=(0.05,), schedule="cosine", settle_epochs=5)
PLAN = Plan(STAGE, STAGE, STAGE, Solver(), max_rounds=1, patience=5, loss_images=20)
KINDS = {
    "plain": Solver(),
    "averaged": Solver(optimizer="adamw", ema=0.8, clip=1.0),
    "accumulated": Solver(accumulate=2, nonfinite="skip"),
}


# Runs that are not killed, by kind and need of descriptors.
WHOLE: dict[tuple[str, bool], TrainState] = {}


class Killed(Exception):
    pass


def new_state(make_model: Make) -> TrainState:
    return TrainState("rri", make_model(), Objective(LossWeights(center=0.1), num_classes=5, width=12))


def stopping(after: int, every: int) -> tuple[Callbacks, dict[str, bytes]]:
    """Save after every `every`-th step and be killed at step `after`, or at the end of the epoch that holds it."""
    saved: dict[str, bytes] = {}
    steps = 0

    def save(state: TrainState, *_: Any) -> None:
        buffer = io.BytesIO()
        torch.save(state.to_checkpoint(), buffer)
        saved["state"] = buffer.getvalue()
        if steps >= after:
            raise Killed

    def due(state: TrainState) -> bool:
        nonlocal steps
        steps += 1
        return steps % every == 0 or steps >= after

    return callbacks(should_save=due, save=save, on_epoch_end=save, on_stage_end=save), saved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("needs_descriptors", [False, True])
@pytest.mark.parametrize("after", [1, 3, 7, 14, 28])
def test_killed_at_a_step(make_model: Make, loader: Any, kind: str, needs_descriptors: bool, after: int) -> None:
    loader.needs_descriptors = needs_descriptors
    plan = dataclasses.replace(PLAN, solver=KINDS[kind])
    if (kind, needs_descriptors) not in WHOLE:
        WHOLE[kind, needs_descriptors] = new_state(make_model)
        run_stages(WHOLE[kind, needs_descriptors], loader, plan, callbacks())
    whole = WHOLE[kind, needs_descriptors]

    after = -(-after // plan.solver.accumulate)
    hooks, saved = stopping(after, every=2)
    with pytest.raises(Killed):
        run_stages(new_state(make_model), loader, plan, hooks)
    content = torch.load(io.BytesIO(saved["state"]), weights_only=True)
    assert content["middle"]["sums"]["batches"] in (1, 2, 3, 4)
    torch.manual_seed(999)  # what else happened meanwhile must not matter
    again = new_state(make_model)
    again.model.load_state_dict(content["model"])
    again.objective.load_state_dict(content["objective"])
    again.restore(content)
    entries: list[dict[str, Any]] = []
    run_stages(again, loader, plan, callbacks(on_epoch_end=lambda state, entry: entries.append(entry)))
    assert [(row.train_loss, row.correlation, row.extra.get("lr")) for row in again.rows] == [
        (row.train_loss, row.correlation, row.extra.get("lr")) for row in whole.rows
    ]
    assert entries[0]["epoch"] == content["position"]["epoch"] + 1
    for mine, theirs in ((whole.model, again.model), (whole.objective, again.objective)):
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
