"""Every two of a pooling, a normalization and a loss go together: a step on images lowers what is minimized.

Every pair of them is in some combination, not every combination of three.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from composed_network import compose
from narrow_resnet import narrow_resnet
from torch import Tensor, nn

from reid.losses.objective import LossWeights, Objective
from reid.model.backbones import BACKBONES
from reid.model.backbones.resnet import ResNetTrunk
from reid.model.network import ReidNetwork
from reid.model.normalization import NORMS
from reid.model.pooling import POOLINGS

LOSSES: dict[str, dict[str, Any]] = {
    "identity": {},
    "smoothed": {"label_smoothing": 0.1},
    "triplet": {"identity": 0.0, "triplet": 1.0},
    "contrastive": {"identity": 0.0, "contrastive": 1.0},
    "circle": {"identity": 0.0, "circle": 0.1, "circle_scale": 16.0},
    "center": {"center": 0.1},
    "sum": {"triplet": 0.5, "contrastive": 1.0, "penalty": "so", "penalty_weight": 0.01},
}
OPTIONS = {"regional_weighted_gem": {"regions": 2}, "rmac": {"levels": 1}}
STEPS = (0.02, 0.2, 0.05, 0.005, 5e-4, 1e-5)


class Tiny(nn.Module):
    """(B, 3, H, W) -> (B, 8, H / 8, W / 8), with two normalizations."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(images)).relu())).relu()


def tiny_resnet(**_: Any) -> ResNetTrunk:
    """The smallest network that IBN-Net is defined for."""
    torch.manual_seed(0)
    return ResNetTrunk(narrow_resnet())


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    """Four identities with three images each: colored noise, the identity decides the mean color of four stripes."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(4).repeat_interleave(3)
    stripes = torch.randn(4, 3, 4, 1, generator=generator).repeat_interleave(16, 2)
    return stripes[labels] + 0.5 * torch.randn(12, 3, 64, 32, generator=generator), labels


def made(pooling: str, norm: str) -> ReidNetwork:
    torch.manual_seed(0)
    vlad = {"clusters": 3, "init": "random"}
    options: dict[str, Any] = vlad if pooling.endswith("vlad") else OPTIONS.get(pooling, {})
    return compose(
        "tiny_resnet" if norm.startswith("ibn") else "tiny",
        4,
        pooling=pooling,
        pooling_options=options,
        norm=norm,
        norm_groups=2,
        eigenlayer={"k": 6, "init_std": 0.2},
        dropout=0.0,
    )


def value(network: ReidNetwork, objective: Objective, images: Tensor, labels: Tensor) -> Tensor:
    embedding = network.embed(images)
    terms = objective(
        network.classify(embedding.output, labels),
        labels,
        input=embedding.input,
        output=embedding.output,
        vectors=network.eigenlayer.vectors,
    )
    return torch.stack(list(terms.values())).sum()


@torch.no_grad()
def stepped(network: ReidNetwork, objective: Objective, images: Tensor, labels: Tensor, rate: Tensor) -> Tensor:
    """The loss after a step of plain gradient descent, which is taken back."""
    moved = [parameter for parameter in network.parameters() if parameter.grad is not None]
    kept = [parameter.clone() for parameter in moved]
    for parameter in moved:
        parameter -= rate * parameter.grad
    after = value(network, objective, images, labels)
    for parameter, before in zip(moved, kept, strict=True):
        parameter.copy_(before)
    return after


def combinations() -> Iterator[tuple[str, str, str]]:
    """(pooling, norm, loss): every pooling with every norm; along each of them the losses take turns."""
    losses = list(LOSSES)
    for (i, pooling), (j, norm) in itertools.product(enumerate(POOLINGS), enumerate(NORMS)):
        yield pooling, norm, losses[(i + j) % len(losses)]


def test_every_two_are_combined() -> None:
    found = list(combinations())
    for first, second in itertools.combinations(range(3), 2):
        pairs = {(combination[first], combination[second]) for combination in found}
        sizes = [len({combination[part] for combination in found}) for part in (first, second)]
        assert len(pairs) == sizes[0] * sizes[1]
    assert {loss for *_, loss in found} == set(LOSSES)


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_lowers_the_loss(batch: tuple[Tensor, Tensor], norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", lambda **_: Tiny())
    monkeypatch.setitem(BACKBONES, "tiny_resnet", tiny_resnet)
    images, labels = batch
    stuck = []
    for pooling, _, loss in (combination for combination in combinations() if combination[1] == norm):
        network = made(pooling, norm)
        width = network.eigenlayer.vectors.shape[0]
        objective = Objective(LossWeights(**LOSSES[loss]), num_classes=4, width=width)
        before = value(network, objective.eval(), images, labels)
        before.backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), (pooling, loss)
        length = torch.stack([gradient.norm() for gradient in gradients]).norm()
        # How far the loss falls along its slope is another matter for each of them; counts of zeros and nearest
        # clusters jump on the way.
        if not any(stepped(network, objective, images, labels, size / length) < before for size in STEPS):
            stuck.append((pooling, loss))
    assert stuck == []
