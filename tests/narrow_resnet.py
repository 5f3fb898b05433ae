"""A ResNet with few channels and one block in each stage, for tests that need its structure and not its size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from reid.model.backbones import BACKBONES
from reid.model.backbones.resnet import ResNetTrunk


def narrow_resnet(width: int = 8) -> ResNet:
    """From `width` channels in the first stage to 8 `width` in the last."""
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.inplanes = width
    network.conv1, network.bn1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)
    for stage in range(4):
        layer = network._make_layer(BasicBlock, width << stage, 1, stride=1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Linear(width << 3, 1000)
    return network


@pytest.fixture(scope="module")
def narrow_resnet34() -> Iterator[None]:
    """The name "resnet34" stands for a narrow ResNet, of 64 channels in the last stage, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet34", lambda **_: ResNetTrunk(narrow_resnet()))
        yield
