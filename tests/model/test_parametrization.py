"""Parametrized Eigenlayers: orthogonal while training, and their state dicts."""

from __future__ import annotations

import copy

import pytest
import torch

from reid.decorrelation import correlation_metric
from reid.errors import InputError
from reid.model.eigenlayer import Eigenlayer
from reid.model.parametrization import ORTHOGONAL_MAPS, parametrize_weight, plain_state
from reid.training.optimizer import Solver, make_optimizer


def layer(name: str, map: str = "matrix_exp", d_in: int = 9, k: int = 5) -> Eigenlayer:
    torch.manual_seed(0)
    made = Eigenlayer(d_in, k, init_std=0.2)
    parametrize_weight(made, name, map)
    return made


def trained(made: Eigenlayer, steps: int = 30) -> Eigenlayer:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(40, 9, generator=generator), torch.randn(40, 5, generator=generator)
    optimizer = make_optimizer(made, Solver(optimizer="adamw", weight_decay=0.1), 0.05)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"]
    for _ in range(steps):
        optimizer.zero_grad()
        (made(inputs) - targets).square().mean().backward()
        optimizer.step()
    return made


@pytest.mark.parametrize("map", ORTHOGONAL_MAPS)
@pytest.mark.parametrize("name", ["orthogonal", "scaled_orthogonal"])
def test_training_moves_it_and_leaves_it_orthogonal(name: str, map: str) -> None:
    made = layer(name, map)
    before = made.vectors.detach().clone()
    after = trained(made).vectors.detach()
    assert (after - before).abs().max() > 0.1
    gram = after.T @ after
    lengths = gram.diagonal().clone()
    assert torch.allclose(gram, torch.diag(lengths), atol=1e-5)
    assert correlation_metric(after) == pytest.approx(1.0, abs=1e-4)
    if name == "orthogonal":
        assert torch.allclose(lengths, torch.ones(5), atol=1e-5)
    else:
        assert (lengths - 1).abs().max() > 0.1


def test_the_scale_starts_at_the_lengths_of_the_first_weights() -> None:
    plain, scaled = layer("none"), layer("scaled_orthogonal")
    assert torch.allclose(scaled.vectors.norm(dim=0), plain.vectors.norm(dim=0), atol=1e-5)
    assert torch.allclose(layer("orthogonal").vectors.norm(dim=0), torch.ones(5), atol=1e-5)


@pytest.mark.parametrize("name", ["orthogonal", "scaled_orthogonal"])
def test_its_state_brings_the_weight_back(name: str) -> None:
    made = trained(layer(name))
    again = layer(name)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.vectors, made.vectors)
    assert torch.equal(copy.deepcopy(made).vectors, made.vectors)


def test_the_plain_state_holds_weights_and_not_what_they_are_computed_from() -> None:
    net = torch.nn.Sequential(layer("scaled_orthogonal"), torch.nn.Linear(5, 2))
    net.append(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 3)))
    state = plain_state(net)
    assert set(state) == {f"{i}.{name}" for i in range(3) for name in ("weight", "bias")} - {"0.bias"}
    assert all(torch.equal(tensor, getattr(net[int(name[0])], name[2:])) for name, tensor in state.items())
    plain = torch.nn.Linear(2, 2)
    assert {n: t.tolist() for n, t in plain_state(plain).items()} == {
        n: t.tolist() for n, t in plain.state_dict().items()
    }
    assert set(plain_state(layer("orthogonal"))) == {"weight"}


def test_unknown_names_are_errors() -> None:
    with pytest.raises(InputError, match="did you mean orthogonal"):
        layer("orthogonl")
    with pytest.raises(InputError, match="did you mean cayley"):
        layer("orthogonal", "caley")
