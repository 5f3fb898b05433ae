from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.model.parametrization import parametrize_weight
from reid.training.optimizer import Solver, freeze, make_optimizer, resume_optimizer, set_training_mode

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


def test_only_an_orthogonal_weight_is_computed_from_what_does_not_decay(make_model: Make) -> None:
    model = make_model()
    weight_norm(model.backbone.conv1)
    parametrize_weight(model.eigenlayer, "scaled_orthogonal")
    groups = make_optimizer(model, Solver(weight_decay=0.1), 0.5).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    computed = {name: decay[id(p)] for name, p in model.named_parameters() if "parametrizations" in name}
    assert {name.split(".")[0]: value for name, value in computed.items()} == {"backbone": 0.1, "eigenlayer": 0.0}


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


def test_a_resumed_optimizer_keeps_its_momentum_and_takes_new_rates(make_model: Make) -> None:
    model = make_model()
    before, after = (make_optimizer(model, Solver(weight_decay=decay), lr) for decay, lr in ((0.1, 0.5), (0.2, 0.05)))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before.param_groups[0]["lr"] = before.param_groups[1]["lr"] = 0.0
    before.step()
    resume_optimizer(after, before.state_dict())
    assert [(group["base_lr"], group["weight_decay"]) for group in after.param_groups] == [(0.05, 0.2)] * 2
    gathered = {id(p): state["momentum_buffer"] for p, state in after.state.items()}
    assert len(gathered) == len(list(model.parameters()))
    assert all(
        torch.equal(buffer, before.state[p]["momentum_buffer"])
        for p, buffer in zip(after.state, gathered.values(), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_one_kernel_and_one_for_each_operation_differ_by_rounding(
    make_model: Make, optimizer: str, amsgrad: bool
) -> None:
    steps = []
    for fused in (None, False):
        solver = Solver(optimizer=optimizer, amsgrad=amsgrad, fused=fused)
        model = make_model()
        made = make_optimizer(model, solver, 0.01)
        assert bool(made.defaults["fused"]) == (fused is None)
        for step in range(3):
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            made.step()
        steps.append(torch.nn.utils.parameters_to_vector(model.parameters()))
        resume_optimizer(make_optimizer(model, Solver(optimizer=optimizer, amsgrad=amsgrad), 0.01), made.state_dict())
    torch.testing.assert_close(*steps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", ["optimizer", "freeze"])
def test_an_optimizer_of_another_kind_is_refused(make_model: Make, change: str) -> None:
    model = make_model()
    state = make_optimizer(model, Solver(), 0.5).state_dict()
    if change == "freeze":
        freeze(model, ["eigenlayer"])
    other = make_optimizer(model, Solver(optimizer="adam" if change == "optimizer" else "sgd"), 0.5)
    with pytest.raises(InputError, match="a different optimizer or different parameters"):
        resume_optimizer(other, state)
