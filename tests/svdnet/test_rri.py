"""The iteration: its order, its end, its control, and going on after an interruption."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_run import callbacks, run_stages

from reid.model.network import ReidNetwork
from reid.svdnet import rri
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver, make_optimizer
from reid.training.schedule import Schedule
from reid.training.state import TrainState

Make = Callable[[], ReidNetwork]
PLAN = Plan(
    step0=Schedule(epochs=2, lr=(0.05,)),
    restraint=Schedule(epochs=2, lr=(0.02,)),
    relaxation=Schedule(epochs=1, lr=(0.02, 0.01)),
    solver=Solver(weight_decay=1e-3),
    max_rounds=2,
    patience=5,
    loss_images=20,
)


def course(state: TrainState) -> list[tuple[str, int, int]]:
    return [(row.stage, row.round, row.epochs) for row in state.rows]


def round_of(number: int, restraint: int = 2) -> list[tuple[str, int, int]]:
    return [("decorrelate", number, 0), ("restraint", number, restraint), ("relaxation", number, 1)]


def test_the_course_of_a_run(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    assert run_stages(state, loader, PLAN, callbacks()) == "max_rounds"
    assert course(state) == [("step0", 0, 2), *round_of(1), *round_of(2)]


def test_a_final_restraint_is_round_n_plus_1(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    run_stages(state, loader, dataclasses.replace(PLAN, max_rounds=1, final_restraint=True), callbacks())
    assert course(state) == [("step0", 0, 2), *round_of(1), ("decorrelate", 2, 0), ("restraint", 2, 2)]
    assert state.rows[-1].correlation == pytest.approx(1.0, abs=1e-6)


def test_it_stops_when_the_correlation_no_longer_rises(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    plan = dataclasses.replace(PLAN, max_rounds=6, patience=1, tolerance=1.0)  # no rise can count
    assert run_stages(state, loader, plan, callbacks()) == "converged"
    assert course(state)[-1] == ("relaxation", 2, 1)


def test_the_control_copies_rounds_and_epochs_without_the_replacement(make_model: Make, loader: Any) -> None:
    settling = Schedule(epochs=9, lr=(1e-9,), schedule="cosine", settle_epochs=1, settle_tolerance=0.5)
    plan = dataclasses.replace(PLAN, restraint=settling, final_restraint=True)
    state = TrainState("rri", make_model())
    after_step0: dict[str, Any] = {}

    def keep(state: TrainState, row: Any) -> None:
        if row.stage == "step0":
            after_step0.update({name: tensor.clone() for name, tensor in state.model.state_dict().items()})

    run_stages(state, loader, plan, callbacks(on_stage_end=keep))
    model = make_model()
    model.load_state_dict(after_step0)
    rates: list[tuple[str, float]] = []
    control = TrainState("control", model, rows=[dataclasses.replace(state.rows[0], run="control")])
    hooks = callbacks(on_epoch_end=lambda s, entry: rates.append((entry["stage"], entry["lr"])))
    rri.run_control(control, loader, plan, hooks, state.rows)
    assert course(control) == course(state)
    assert course(state)[1:] == [*round_of(1), *round_of(2), ("decorrelate", 3, 0), ("restraint", 3, 2)]
    assert [row.extra["variant"] for row in control.rows if row.stage == "decorrelate"] == ["none"] * 3
    # The rate follows the nine epochs that were planned, not the two that were trained: it is far from zero.
    assert all(rate > 0.8e-9 for stage, rate in rates if stage == "restraint")
    assert torch.equal(control.model.eigenlayer.weight, after_step0["eigenlayer.weight"]) is False  # relaxed
    assert all(row.correlation < 0.99 for row in control.rows)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("saved_as", "fused"), [(None, False), (False, False), (True, True)])
def test_the_kernel_of_the_optimizer_is_the_one_that_the_run_began_with(
    make_model: Make, loader: Any, monkeypatch: pytest.MonkeyPatch, saved_as: bool | None, fused: bool
) -> None:
    content = TrainState("rri", make_model()).to_checkpoint()
    assert content["position"].pop("fused") is True  # earlier versions did not save it
    if saved_as is not None:
        content["position"]["fused"] = saved_as
    kernels = []

    def made(model: ReidNetwork, solver: Solver, *rest: Any) -> torch.optim.Optimizer:
        kernels.append(solver.fused)
        return make_optimizer(model, solver, *rest)

    monkeypatch.setattr("reid.training.stage.make_optimizer", made)
    for asked, expected in ((None, fused), (not fused, not fused)):  # a choice in the configuration comes first
        state = TrainState("rri", make_model())
        state.restore(content)
        plan = dataclasses.replace(PLAN, solver=dataclasses.replace(PLAN.solver, fused=asked), max_rounds=1)
        run_stages(state, loader, plan, callbacks())
        assert set(kernels) == {expected}
        assert state.to_checkpoint()["position"]["fused"] is fused
        kernels.clear()


@pytest.mark.parametrize("epochs_before", [1, 3, 4, 5, 7])
def test_a_run_taken_up_again_ends_as_one_never_broken(make_model: Make, loader: Any, epochs_before: int) -> None:
    whole = TrainState("rri", make_model())
    run_stages(whole, loader, PLAN, callbacks())

    saved: dict[str, Any] = {}
    count = 0

    def save(state: TrainState, entry: Any) -> None:
        saved.clear()
        content = state.to_checkpoint()
        content["model"] = {name: tensor.clone() for name, tensor in content["model"].items()}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        saved["bytes"] = buffer.getvalue()

    def epoch(state: TrainState, entry: Any) -> None:
        nonlocal count
        count += 1
        save(state, entry)
        if count == epochs_before:
            raise Killed

    with pytest.raises(Killed):
        run_stages(TrainState("rri", make_model()), loader, PLAN, callbacks(on_epoch_end=epoch, on_stage_end=save))
    torch.manual_seed(999)  # what else happened meanwhile must not matter
    content = torch.load(io.BytesIO(saved["bytes"]), weights_only=True)
    again = TrainState("rri", make_model())
    again.model.load_state_dict(content["model"])
    again.restore(content)
    run_stages(again, loader, PLAN, callbacks())
    assert course(again) == course(whole)
    assert [row.train_loss for row in again.rows] == [row.train_loss for row in whole.rows]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
