"""Classifiers with a margin, compared with the formulas and with pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss
from torch.nn import functional

from reid.model.classifiers import MarginLinear


def layer(name: str, margin: float = 0.4, scale: float = 8.0) -> MarginLinear:
    torch.manual_seed(0)
    return MarginLinear(6, 5, name, scale, margin)


FEATURES, LABELS = torch.randn(7, 6, generator=torch.Generator().manual_seed(1)), torch.arange(7) % 5


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_logits_are_the_formula(name: str) -> None:
    head = layer(name)
    unit = FEATURES.double() / FEATURES.double().norm(dim=1, keepdim=True)
    weight = head.weight.detach().double()
    cosines = unit @ (weight / weight.norm(dim=1, keepdim=True)).T
    assert torch.allclose(head(FEATURES).double(), 8 * cosines, atol=1e-5)
    for row, label in enumerate(LABELS):
        cosine = cosines[row, label].item()
        cosines[row, label] = math.cos(math.acos(cosine) + 0.4) if name == "arcface" else cosine - 0.4
    assert torch.allclose(head(FEATURES, LABELS).double(), 8 * cosines, atol=1e-5)


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_the_loss_is_the_librarys_with_the_same_weights(name: str) -> None:
    head = layer(name)
    kind, argument = (ArcFaceLoss, math.degrees(0.4)) if name == "arcface" else (CosFaceLoss, 0.4)
    library = kind(num_classes=5, embedding_size=6, margin=argument, scale=8.0)
    with torch.no_grad():
        library.W.copy_(head.weight.T)
    found = functional.cross_entropy(head(FEATURES, LABELS), LABELS)
    assert found.item() == pytest.approx(library(FEATURES, LABELS).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["arcface", "cosface"])
@pytest.mark.parametrize("size", [0.1, 0.5, 1.2])
def test_every_cosine_gets_the_librarys_margin(name: str, size: float) -> None:
    # From one vector to its opposite: past the angle π - margin, the cosine with a margin would rise again.
    kind, argument = (ArcFaceLoss, math.degrees(size)) if name == "arcface" else (CosFaceLoss, size)
    library = kind(num_classes=1, embedding_size=1, margin=argument).modify_cosine_of_target_classes
    angles = torch.linspace(0.01, math.pi - 0.01, 500)
    head = MarginLinear(2, 1, name, 1.0, size)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0]]))
    logits = head(torch.stack([angles.cos(), angles.sin()], dim=1), torch.zeros(500, dtype=torch.int64))
    torch.testing.assert_close(logits[:, 0], library(angles.cos()), rtol=0, atol=1e-4)
    assert (logits[1:] < logits[:-1]).all()


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_a_feature_on_or_against_its_vector_has_a_finite_gradient(name: str) -> None:
    head = layer(name)
    features = torch.stack([head.weight[0], -head.weight[1]]).detach().requires_grad_()
    head(features, torch.tensor([0, 1])).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_the_weight_alone_is_its_state_and_random_numbers_are_left_alone() -> None:
    assert set(layer("arcface").state_dict()) == {"weight"}
    torch.manual_seed(3)
    MarginLinear(2, 2, "cosface", 1.0, 0.1)
    first = torch.rand(1)
    torch.manual_seed(3)
    torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.normal_(torch.empty(2, 2))
    assert torch.equal(first, torch.rand(1))
