"""The moving average of the weights: its formula, what it ends a stage with, and that a frozen weight stays."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_run import callbacks, run_stages

from reid.decorrelation import correlation_metric
from reid.model.network import ReidNetwork
from reid.svdnet import step0
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.state import TrainState
from reid.training.weight_average import load_average, start_average, update_average

Make = Callable[[], ReidNetwork]
SOLVER = Solver(weight_decay=1e-3, ema=0.7)


def test_it_is_the_formula(make_model: Make) -> None:
    model = make_model()
    average = start_average(model)
    expected = {name: tensor.double() for name, tensor in average.items()}
    generator = torch.Generator().manual_seed(1)
    for steps in range(1, 30):
        for tensor in average:
            model.state_dict()[tensor].add_(torch.randn(model.state_dict()[tensor].shape, generator=generator))
        update_average(average, model, 0.7, steps)
        d = min(0.7, (1 + steps) / (10 + steps))
        for name in expected:
            expected[name] = d * expected[name] + (1 - d) * model.state_dict()[name].double()
    assert all(torch.allclose(average[name].double(), expected[name], atol=1e-5) for name in expected)
    load_average(model, average)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in average.items())
    assert "backbone.bn1.num_batches_tracked" not in average


def test_a_stage_ends_with_it(make_model: Make, loader: Any) -> None:
    state = TrainState("rri", make_model())
    contents: list[dict[str, Any]] = []
    correlations: list[float] = []
    plain: dict[str, torch.Tensor] = {}

    def epoch(state: TrainState, entry: dict[str, Any]) -> None:
        assert state.average is not None
        contents.append(copy.deepcopy(state.to_checkpoint()))
        correlations.append(entry["correlation"])
        plain.update({name: tensor.clone() for name, tensor in state.model.state_dict().items()})

    evaluated: list[torch.Tensor] = []
    hooks = callbacks(
        on_epoch_end=epoch,
        evaluate=lambda model, last=False: (evaluated.append(model.eigenlayer.weight.detach().clone()), ())[1],
    )
    schedule = Schedule(epochs=3, lr=(0.05,))
    row = step0.run(state, loader, Plan(schedule, schedule, schedule, SOLVER), hooks)
    saved = contents[-1]
    weight = state.model.eigenlayer.weight
    assert torch.equal(weight, saved["model"]["eigenlayer.weight"]) and torch.equal(weight, evaluated[0])
    assert torch.equal(saved["trained"]["eigenlayer.weight"], plain["eigenlayer.weight"])
    assert not torch.equal(weight, plain["eigenlayer.weight"])
    assert row.correlation == correlations[-1] == correlation_metric(weight.T)
    assert state.average is None and state.to_checkpoint()["trained"] is None


@pytest.mark.parametrize("ema", [0.0, 0.7])
def test_a_whole_run_replaces_and_freezes_the_one_there_is(make_model: Make, loader: Any, ema: float) -> None:
    state = TrainState("rri", make_model())
    stage = Schedule(epochs=2, lr=(0.02,))
    plan = Plan(
        stage, stage, stage, dataclasses.replace(SOLVER, ema=ema), max_rounds=1, patience=5, loss_images=20,
        final_restraint=True,
    )  # fmt: skip
    run_stages(state, loader, plan, callbacks())  # Restraint itself checks that the Eigenlayer is bit-identical
    found = {(row.stage, row.round): row.correlation for row in state.rows}
    assert found["decorrelate", 1] == found["restraint", 1] == pytest.approx(1, abs=1e-6)
    assert found["decorrelate", 2] == found["restraint", 2] == pytest.approx(1, abs=1e-6)
    assert found["relaxation", 1] < 1 - 1e-4
