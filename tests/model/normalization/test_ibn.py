"""IBN-Net: its formula, its position, and the names and weights as published."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import torchvision
from composed_network import compose, randomize
from torch import nn
from torch.nn import functional

from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.backbones.resnet import ResNetTrunk
from reid.model.normalization import IBN, normalize


def test_ibn_is_instance_on_one_half_and_batch_on_the_other() -> None:
    norm = nn.BatchNorm2d(6)
    randomize(norm)
    layer = IBN(norm).double()
    assert torch.equal(layer.BN.running_var, norm.running_var[3:].double())
    assert torch.equal(layer.BN.weight.detach(), norm.weight[3:].double())
    maps = 3 * torch.randn(4, 6, 5, 3, dtype=torch.float64) + 1
    given, expected = maps.numpy(), np.empty(maps.shape)
    for n, c in np.ndindex(4, 6):
        part = given[n, c] if c < 3 else given[:, c]
        expected[n, c] = (given[n, c] - part.mean()) / np.sqrt(part.var() + 1e-5)
    scale, shift = (torch.cat((getattr(layer.IN, k), getattr(layer.BN, k))).detach() for k in ("weight", "bias"))
    expected = expected * scale.numpy()[:, None, None] + shift.numpy()[:, None, None]
    np.testing.assert_allclose(layer.train()(maps).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def keys(name: str, norm: str) -> set[str]:
    with torch.device("meta"):
        return set(normalize(BACKBONES[name](), norm, network=name, pretrained=False).state_dict())


def test_names_of_ibn_net_are_the_published_ones() -> None:
    with torch.device("meta"):
        plain = set(BACKBONES["resnet50"]().state_dict())
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [f"layer{stage}.{block}" for stage, count in ((1, 3), (2, 4), (3, 6)) for block in range(count)]
    a = plain - {f"{block}.bn1.{part}" for block in blocks for part in parts}
    a |= {f"{block}.bn1.BN.{part}" for block in blocks for part in parts}
    a |= {f"{block}.bn1.IN.{part}" for block in blocks for part in parts[:2]}
    assert keys("resnet50", "ibn_a") == a
    b = plain - {f"bn1.{part}" for part in parts[2:]}
    b |= {f"{block}.IN.{part}" for block in ("layer1.2", "layer2.3") for part in parts[:2]}
    assert keys("resnet50", "ibn_b") == b
    assert {key for key in keys("resnet18", "ibn_b") if ".IN." in key} == {
        f"{block}.IN.{part}" for block in ("layer1.1", "layer2.1") for part in parts[:2]
    }
    with torch.device("meta"):
        made = normalize(BACKBONES["resnet50"](), "ibn_a", network="resnet50", pretrained=False)
    assert made.layer3[5].bn1.IN.weight.shape == made.layer3[5].bn1.BN.weight.shape == (128,)
    assert isinstance(made.layer4[0].bn1, nn.BatchNorm2d)


def test_ibn_b_normalizes_the_sum_before_the_relu() -> None:
    torch.manual_seed(0)
    trunk = BACKBONES["resnet50"]().double()
    old = copy.deepcopy(trunk.layer1[2]).eval()
    normalize(trunk, "ibn_b", network="resnet50", pretrained=False).double()
    block = trunk.layer1[2].eval()
    maps = torch.randn(2, 256, 4, 4, dtype=torch.float64)
    given = maps.clone()
    branch = old.bn3(old.conv3(old.bn2(old.conv2(old.bn1(old.conv1(maps)).relu())).relu()))
    expected = functional.instance_norm(branch + maps).clamp(min=0)
    assert torch.allclose(block(given), expected, atol=1e-10) and torch.equal(given, maps)


@pytest.mark.parametrize("norm", ["ibn_a", "ibn_b"])
def test_published_and_plain_weights_go_in(norm: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=10)
    published = normalize(ResNetTrunk(copy.deepcopy(plain)), norm, network="resnet18", pretrained=False)
    randomize(published)
    weights = {**published.state_dict(), "fc.weight": plain.fc.weight, "fc.bias": plain.fc.bias}
    with caplog.at_level(logging.WARNING):
        net = compose("resnet18", 3, weights=weights, norm=norm)
    assert not caplog.text
    assert all(torch.equal(value, weights[name]) for name, value in net.backbone.state_dict().items())
    with pytest.raises(InputError, match=rf"f\.pth: not the weights of resnet18 with {norm}.*1 missing \(conv1"):
        missing = {name: value for name, value in weights.items() if name != "conv1.weight"}
        compose("resnet18", 3, weights=missing, norm=norm, source="f.pth")
    with caplog.at_level(logging.WARNING):
        net = compose("resnet18", 3, weights=plain.state_dict(), norm=norm)
    lost = "half the channels of 6 batch normalizations" if norm == "ibn_a" else "1 batch normalization, the stem's"
    assert f"resnet18: normalization {norm} discards the pretrained statistics" in caplog.text and lost in caplog.text
    assert torch.equal(net.backbone.state_dict()["layer3.1.conv2.weight"], plain.layer3[1].conv2.weight)
