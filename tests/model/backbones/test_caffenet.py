"""CaffeNet: sizes, layers and first weights of the authors' release of SVDNet."""

from __future__ import annotations

import pytest
import torch
from composed_network import compose
from torch import Tensor
from torch.nn import functional

from reid.config import build
from reid.config.loading import parse_config
from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.necks import NECKS
from reid.training.optimizer import Solver, lr_factors_by_name, make_optimizer

# conv and fc6 of the published model: 2,334,080 weights and biases in the convolutions, 37,752,832 in fc6.
CONVOLUTIONS = 96 * (3 * 121 + 1) + 256 * (48 * 25 + 1) + 384 * (256 * 9 + 1) + (384 + 256) * (192 * 9 + 1)


def response_normalized(maps: Tensor) -> Tensor:
    """Krizhevsky et al. 2012, section 3.3, with Caffe's alpha / n."""
    out = torch.empty_like(maps)
    channels = maps.shape[1]
    for c in range(channels):
        near = maps[:, max(0, c - 2) : min(channels, c + 3)]
        out[:, c] = maps[:, c] / (1 + 1e-4 / 5 * near.square().sum(1)) ** 0.75
    return out


def by_hand(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Pooling by Caffe's rule: the window that overhangs the end counts."""

    def pool(maps: Tensor) -> Tensor:
        size = -(-(maps.shape[2] - 3) // 2) + 1
        windows = [
            [maps[:, :, 2 * j : 2 * j + 3, 2 * k : 2 * k + 3].amax((2, 3)) for k in range(size)] for j in range(size)
        ]
        return torch.stack([torch.stack(row, 2) for row in windows], 2)

    def convolution(number: int, maps: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        weight, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
        pairs = zip(maps.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
        parts = [functional.conv2d(part, w, b, stride, padding) for part, w, b in pairs]
        return torch.cat(parts, 1).clamp(min=0)

    maps = response_normalized(pool(convolution(1, images, 4, 0, 1)))
    maps = response_normalized(pool(convolution(2, maps, 1, 2, 2)))
    maps = convolution(4, convolution(3, maps, 1, 1, 1), 1, 1, 2)
    return pool(convolution(5, maps, 1, 1, 2))


def test_trunk_is_caffenet() -> None:
    torch.manual_seed(0)
    trunk = BACKBONES["caffenet"]().double().eval()
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05) if name.endswith("weight") else True
            parameter.mul_(5.0 if name.endswith("weight") else 0.1)  # so that response normalization is felt
        images = 40 * torch.randn(1, 3, 227, 227, dtype=torch.float64)
        maps = trunk(images)
        expected = by_hand(dict(trunk.state_dict()), images)
    assert maps.shape == (1, 256, 6, 6)
    assert torch.allclose(maps, expected, rtol=1e-9) and expected.std() > 0.1
    assert sum(p.numel() for p in trunk.parameters()) == CONVOLUTIONS == 2_334_080


def test_first_weights_and_neck_are_the_release_s() -> None:
    trunk = BACKBONES["caffenet"]()
    biases = {name: value.unique().tolist() for name, value in trunk.state_dict().items() if name.endswith("bias")}
    assert biases == {f"conv{n}.bias": [value] for n, value in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 1.0), (5, 1.0))}
    net = compose("caffenet", 3, pooling="flatten", eigenlayer={"init_std": 0.005})
    assert net.neck.fc6.weight.shape == (4096, 9216) and net.eigenlayer.weight.shape == (1024, 4096)
    assert net.neck.fc6.weight.std().item() == pytest.approx(0.005, rel=0.01)
    assert net.neck.fc6.bias.unique().tolist() == [1.0]
    assert [type(part).__name__ for part in net.neck] == ["Linear", "ReLU", "Dropout"] and net.neck.dropout.p == 0.5
    with torch.no_grad():
        embedding = net.eval().embed(torch.randn(1, 3, 227, 227))
    assert embedding.input.shape == (1, 4096) and embedding.input.min() == 0


def test_what_it_refuses() -> None:
    with torch.device("meta"):
        trunk = BACKBONES["caffenet"]()
        with pytest.raises(InputError, match=r"caffenet takes images of 227 x 227, not 224 x 224"):
            trunk(torch.zeros(1, 3, 224, 224))
    with pytest.raises(InputError, match="not the weights of caffenet"):
        BACKBONES["caffenet"](weights={"conv1.weight": torch.zeros(96, 3, 11, 11)})
    with pytest.raises(InputError, match="flattening needs feature maps of one size"):
        compose("osnet_x0_25", 3, pooling="flatten")


def test_weights_in_caffe_s_names_come_back() -> None:
    trunk, neck = BACKBONES["caffenet"](), NECKS["caffenet"](9216)
    weights = {**trunk.state_dict(), **neck.state_dict(), "fc8.bias": torch.zeros(1000)}
    net = compose("caffenet", 3, pooling="flatten", weights=weights)
    assert torch.equal(net.backbone.conv4.weight, trunk.conv4.weight)
    assert torch.equal(net.neck.fc6.weight, neck.fc6.weight)


def test_the_recipe_slows_fc6_in_step_0_and_relaxation() -> None:
    config = parse_config(
        "MODEL: {BACKBONE: caffenet, WEIGHTS: none, POOLING: {NAME: flatten}}\nINPUT: {SIZE: [227, 227]}\n"
        "SOLVER: {BIAS_LR_FACTOR: 2.0, BIAS_WEIGHT_DECAY: False, PRECISION: float32}\n"
        "STEP0: {LR_FACTORS: neck.fc6=0.5}\nRELAXATION: {LR_FACTORS: [neck.fc6=0.5]}",
        ["MODEL.DEVICE", "cpu"],
    )
    plan = build.plan(config)
    assert plan.step0.lr_factors == plan.relaxation.lr_factors == (("neck.fc6", 0.5),)
    assert plan.restraint.lr_factors == ()
    net = torch.nn.ModuleDict({"neck": NECKS["caffenet"](8), "classifier": torch.nn.Linear(4, 2)})
    optimizer = make_optimizer(net, plan.solver, 1e-3, plan.step0.lr_factors)
    rates = {id(p): (g["base_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {name: rates[id(parameter)] for name, parameter in net.named_parameters()}
    assert found == {
        "neck.fc6.weight": (0.5e-3, 5e-4),
        "neck.fc6.bias": (1e-3, 0.0),
        "classifier.weight": (1e-3, 5e-4),
        "classifier.bias": (2e-3, 0.0),
    }
    assert [g["base_lr"] for g in make_optimizer(net, Solver(), 1e-3).param_groups] == [1e-3, 1e-3]


def test_a_factor_that_meets_nothing_is_a_mistake() -> None:
    net = torch.nn.ModuleDict({"neck": NECKS["caffenet"](8)})
    with pytest.raises(InputError, match=r"LR_FACTORS names no parameter: neck\.fc; names begin with neck\.fc6"):
        lr_factors_by_name(net, [("neck.fc", 0.5)])
    factors = lr_factors_by_name(net, [("neck", 0.5), ("neck.fc6.bias", 3.0)])
    assert factors == {
        "neck.fc6.weight": 0.5,
        "neck.fc6.bias": 3.0,
    }
