"""Every pooling with every normalization and every loss: a step on drawn pedestrians lowers what is minimized."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from composed_network import compose
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from reid.data import DATASETS
from reid.data.augmentation.augment import normalize
from reid.data.images.cache import decode_images
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
    network = ResNet(BasicBlock, [1, 1, 1, 1], width_per_group=64)
    return ResNetTrunk(network)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor]:
    """Four identities of the tiny synthetic set with three images each."""
    folder = tmp_path_factory.mktemp("drawn")
    split = DATASETS["synthetic"](folder, strict=True, cache=folder, size="tiny", layout="market", seed=0)
    chosen: dict[int, list[str]] = {}
    for image in split.train:
        chosen.setdefault(image.identity, []).append(image.path)
    groups = [paths[:3] for paths in chosen.values() if len(paths) >= 3][:4]
    pixels = decode_images([path for group in groups for path in group], size=(64, 32), cache=folder, progress=False)
    images = normalize(torch.from_numpy(np.array(pixels)), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return images, torch.arange(4).repeat_interleave(3)


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, str], ReidNetwork]:
    """One of each pooling and norm; tests train copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", lambda **_: Tiny())
        patch.setitem(BACKBONES, "tiny_resnet", tiny_resnet)
        return {(pooling, norm): made(pooling, norm) for pooling, norm in itertools.product(POOLINGS, NORMS)}


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


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_lowers_the_loss(
    networks: dict[tuple[str, str], ReidNetwork], batch: tuple[Tensor, Tensor], loss: str, norm: str
) -> None:
    images, labels = batch
    stuck = []
    for pooling in POOLINGS:
        network = copy.deepcopy(networks[pooling, norm])
        width = network.eigenlayer.vectors.shape[0]
        objective = Objective(LossWeights(**LOSSES[loss]), num_classes=4, width=width)
        before = value(network, objective.eval(), images, labels)
        before.backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), pooling
        length = torch.stack([gradient.norm() for gradient in gradients]).norm()
        # How far the loss falls along its slope is another matter for each of them; counts of zeros and nearest
        # clusters jump on the way.
        if not any(stepped(network, objective, images, labels, size / length) < before for size in STEPS):
            stuck.append(pooling)
    assert stuck == []
