"""Step 0, decorrelate, Restraint and Relaxation on a small network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_run import CLASSES, callbacks, same_plan

from reid.decorrelation import correlation_metric
from reid.errors import Diverged
from reid.model.network import ReidNetwork
from reid.svdnet import decorrelate, relaxation, restraint, step0
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.state import TrainState

Make = Callable[[], ReidNetwork]
SOLVER = Solver(momentum=0.9, weight_decay=0.1)
SCHEDULE = Schedule(epochs=3, lr=(0.05,))


def tensors(model: ReidNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], model: ReidNetwork) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_step0_lowers_the_loss_and_moves_everything(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    before, epochs = tensors(state.model), []
    hooks = callbacks(on_epoch_end=lambda s, entry: epochs.append(entry))
    row = step0.run(state, loader, same_plan(dataclasses.replace(SCHEDULE, epochs=8), SOLVER), hooks)
    assert row.epochs == len(epochs) == 8
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    assert row.train_loss == epochs[-1]["loss"]
    assert moved(before, state.model) == set(before)
    assert row.correlation == correlation_metric(state.model.eigenlayer.vectors)
    assert [row.stage for row in state.rows] == ["step0"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_restraint_leaves_the_eigenlayer_bit_identical(make_model: Make, loader: Any, optimizer: str) -> None:
    state = TrainState("rri", make_model())
    solver = dataclasses.replace(SOLVER, optimizer=optimizer)
    step0.run(state, loader, same_plan(SCHEDULE, solver), callbacks())  # leaves momentum behind
    before = tensors(state.model)
    restraint.run(state, loader, same_plan(SCHEDULE, solver), callbacks(), round=1)
    assert moved(before, state.model) == set(before) - {"eigenlayer.weight"}


def test_restraint_notices_a_freeze_that_failed(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())

    def meddle(state: TrainState, entry: dict[str, Any]) -> None:
        with torch.no_grad():
            state.model.eigenlayer.weight.mul_(1 + 1e-6)

    with pytest.raises(RuntimeError, match="frozen Eigenlayer changed"):
        restraint.run(state, loader, same_plan(SCHEDULE, SOLVER), callbacks(on_epoch_end=meddle), round=1)


def test_relaxation_moves_the_eigenlayer_and_respects_its_own_freezes(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    before = tensors(state.model)
    schedule = dataclasses.replace(SCHEDULE, freeze=("backbone.conv1", "norm"))
    relaxation.run(state, loader, same_plan(schedule, SOLVER), callbacks(), round=1)
    still = {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}
    assert moved(before, state.model) == set(before) - still


def test_a_stage_ends_early_when_its_loss_has_settled(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    schedule = Schedule(epochs=20, lr=(1e-9,), settle_epochs=2, settle_tolerance=0.5)
    assert step0.run(state, loader, same_plan(schedule, SOLVER), callbacks()).epochs == 3


def test_a_diverged_loss_stops_the_stage(make_model: Make, loader: Any) -> None:
    loader.images[7] = float("inf")
    with pytest.raises(Diverged, match="training loss is"):
        step0.run(TrainState("rri", make_model()), loader, same_plan(SCHEDULE, SOLVER), callbacks())


def test_weights_that_are_no_numbers_stop_the_stage_too(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    with torch.no_grad():
        state.model.backbone.bn1.running_var[0] = float("inf")  # the loss does not show it
    with pytest.raises(Diverged, match="running_var"):
        step0.run(state, loader, same_plan(SCHEDULE, SOLVER), callbacks())


def test_a_stage_may_have_its_own_optimizer(make_model: Make, loader: Any) -> None:
    kinds = []
    for optimizer in ("", "adamw"):
        state = TrainState("rri", make_model())
        hooks = callbacks(on_epoch_end=lambda s, entry: kinds.append(set(next(iter(s.optimizer["state"].values())))))
        schedule = dataclasses.replace(SCHEDULE, epochs=1, optimizer=optimizer)
        step0.run(state, loader, same_plan(schedule, SOLVER), hooks)
    assert kinds == [{"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"}]


def decorrelated(state: TrainState, loader: Any, **options: Any) -> Any:
    return decorrelate.run(state, loader, same_plan(SCHEDULE, SOLVER, **options), callbacks(), round=1)


def test_decorrelate_keeps_distances_and_lifts_the_loss(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    step0.run(state, loader, same_plan(dataclasses.replace(SCHEDULE, epochs=8), SOLVER), callbacks())
    model = state.model.eval()
    with torch.no_grad():
        before = torch.cdist(*[model.embed(loader.images).output.double()] * 2)
        row = decorrelated(state, loader)
        after = torch.cdist(*[model.embed(loader.images).output.double()] * 2)
    assert torch.allclose(before, after, atol=1e-5)
    assert row.correlation == pytest.approx(1.0, abs=1e-6)
    assert row.extra["correlation_before"] < 0.9
    assert row.extra["train_loss_after"] > row.extra["train_loss_before"]
    assert row.extra["spectrum_after"] == pytest.approx(row.extra["spectrum_before"], rel=1e-5)


def test_a_turned_classifier_keeps_the_loss(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    row = decorrelated(state, loader, rotate_classifier=True)
    assert row.correlation == pytest.approx(1.0, abs=1e-6)
    assert row.extra["train_loss_after"] == pytest.approx(row.extra["train_loss_before"], rel=1e-5)


def test_variant_none_changes_nothing(make_model: Make, loader: Any) -> None:
    state = TrainState("control", make_model())
    before = tensors(state.model)
    row = decorrelated(state, loader, variant="none")
    assert not moved(before, state.model)
    assert row.extra["train_loss_after"] == row.extra["train_loss_before"] == row.train_loss


def test_an_eigenlayer_that_is_not_frozen_moves_in_restraint(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    before = tensors(state.model)
    restraint.run(state, loader, same_plan(SCHEDULE, SOLVER, freeze_eigenlayer=False), callbacks(), round=1)
    assert "eigenlayer.weight" in moved(before, state.model)


def test_a_rotation_raises_the_loss_and_keeps_the_correlation_low(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    plan = same_plan(SCHEDULE, SOLVER, variant="rotate")
    step0.run(state, loader, plan, callbacks())
    before = tensors(state.model)
    row = decorrelate.run(state, loader, plan, callbacks(), round=1)
    assert moved(before, state.model) == {"eigenlayer.weight"}
    assert row.extra["train_loss_after"] > row.extra["train_loss_before"]
    assert row.correlation < 0.9
    again = TrainState("rri", make_model())
    again.model.load_state_dict(before)
    decorrelate.run(again, loader, plan, callbacks(), round=2)
    assert not torch.equal(again.model.eigenlayer.weight, state.model.eigenlayer.weight)  # each round has its own


def test_a_new_classifier_each_round(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    plan = same_plan(SCHEDULE, SOLVER, variant="none", reset_classifier=True)
    before = tensors(state.model)
    row = decorrelate.run(state, loader, plan, callbacks(), round=1)
    assert moved(before, state.model) == {"classifier.weight", "classifier.bias"}
    classifier = state.model.classifier
    assert not classifier.bias.any() and float(classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.5)
    assert row.extra["train_loss_after"] == pytest.approx(math.log(CLASSES), rel=0.05)


def test_a_network_that_comes_trained_is_evaluated_as_step0(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    before = tensors(state.model)
    plan = same_plan(SCHEDULE, SOLVER, skip_step0=True)
    row = step0.run(state, loader, plan, callbacks())
    assert not moved(before, state.model) and (row.epochs, row.round, row.stage) == (0, 0, "step0")
    assert decorrelate.run(state, loader, plan, callbacks(), round=1).extra["train_loss_before"] == row.train_loss
    assert step0.run(state, loader, plan, callbacks()) is row
