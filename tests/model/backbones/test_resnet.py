"""The ResNet trunks: sizes, names, last stride, published weights."""

from __future__ import annotations

import pytest
import torch
import torchvision

from reid.errors import InputError
from reid.model.backbones import BACKBONES, build_backbone
from reid.model.backbones.resnet import ResNetTrunk


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [("resnet18", 512, 11_176_512), ("resnet34", 512, 21_284_672), ("resnet50", 2048, 23_508_032)],
)
def test_parameter_count_is_the_published_one_without_fc(name: str, channels: int, parameters: int) -> None:
    with torch.device("meta"):
        trunk = BACKBONES[name]()
    assert trunk.out_channels == channels
    assert sum(p.numel() for p in trunk.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_last_stride_1_doubles_the_map(name: str) -> None:
    images = torch.zeros(1, 3, 128, 64)
    with torch.no_grad():
        shapes = {stride: BACKBONES[name](last_stride=stride).eval()(images).shape[2:] for stride in (None, 2, 1)}
    assert shapes == {None: (4, 2), 2: (4, 2), 1: (8, 4)}


@pytest.mark.parametrize("stride", [0, 3])
def test_another_last_stride_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"1 or 2, not {stride}"):
        BACKBONES["resnet18"](last_stride=stride)


@pytest.mark.parametrize("name", sorted(name for name in BACKBONES if not name.startswith("resnet")))
def test_only_a_resnet_has_a_last_stride(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} does not support MODEL\.LAST_STRIDE \(got 1\); set it to 0"):
        build_backbone(name, last_stride=1)


def test_trunk_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    whole = torchvision.models.resnet18().eval()
    trunk = BACKBONES["resnet18"](weights=whole.state_dict()).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(whole.fc(trunk(images).mean((2, 3))), whole(images), atol=1e-5)
    assert set(trunk.state_dict()) == {name for name in whole.state_dict() if not name.startswith("fc.")}


def test_weights_of_another_resnet_are_refused_and_nothing_is_copied() -> None:
    trunk = BACKBONES["resnet18"]()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    other = torchvision.models.resnet34().state_dict()
    with pytest.raises(InputError, match=r"not the weights of resnet18.*96 unexpected \(layer1\.2\.conv1\.weight"):
        BACKBONES["resnet18"](weights=other)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_network_that_is_no_resnet_is_a_fault() -> None:
    whole = torchvision.models.resnet18()
    whole.layer4 = torch.nn.Sequential(torch.nn.Identity())
    with pytest.raises(TypeError, match="Identity"):
        ResNetTrunk(whole)
