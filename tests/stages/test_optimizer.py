from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.stages.optimizer import Solver, freeze, make_optimizer, set_training_mode

Make = Callable[[], ReidNetwork]


def test_freeze_matches_whole_parts_of_names(make_model: Make) -> None:
    model = make_model()
    freeze(model, ["backbone.conv1", "norm"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}
    freeze(model, [])
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["backbone.conv", "nothing"])
def test_a_freeze_that_freezes_nothing_is_a_mistake(make_model: Make, name: str) -> None:
    with pytest.raises(InputError, match="FREEZE names no parameter"):
        freeze(make_model(), [name])


def test_biases_have_their_own_rate_and_decay(make_model: Make) -> None:
    model = make_model()
    freeze(model, ["eigenlayer"])
    solver = Solver(weight_decay=0.1, bias_lr_factor=2.0, bias_weight_decay=False)
    weights, biases = make_optimizer(model, solver, 0.5).param_groups
    assert (weights["base_lr"], weights["weight_decay"]) == (0.5, 0.1)
    assert (biases["base_lr"], biases["weight_decay"]) == (1.0, 0.0)
    held = {id(p) for group in (weights, biases) for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if not n.startswith("eigenlayer")}
    assert {id(p) for p in biases["params"]} == {
        id(p) for p in (model.backbone.bn1.bias, model.backbone.conv2.bias, model.classifier.bias)
    }


def test_a_freeze_that_leaves_nothing_is_a_mistake(make_model: Make) -> None:
    with pytest.raises(InputError, match="leaves nothing to train"):
        freeze(make_model(), ["backbone", "eigenlayer", "classifier"])


@pytest.mark.parametrize(("statistics", "moves"), [("running", True), ("frozen", False)])
def test_norm_statistics(make_model: Make, statistics: str, moves: bool) -> None:
    model = make_model()
    before = model.backbone.bn1.running_mean.clone()
    set_training_mode(model, statistics)
    model(torch.randn(4, 3, 8, 6))
    assert model.dropout.training
    assert torch.equal(before, model.backbone.bn1.running_mean) is not moves
