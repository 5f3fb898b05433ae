"""Every normalization against its formula in float64, its limits, its names, and in the trainer's own stages."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from composed_network import compose, randomize
from small_run import callbacks, same_plan
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, ResNet

from reid.config import build
from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.backbones.resnet import ResNetTrunk
from reid.model.classifiers import CosineLinear
from reid.model.eigenlayer import Eigenlayer
from reid.model.necks import NECKS, BNNeck
from reid.model.network import ReidNetwork
from reid.model.normalization import NORMS, CosineConv2d, normalize
from reid.svdnet import decorrelate
from reid.training.optimizer import freeze
from reid.training.schedule import Schedule
from reid.training.state import TrainState

EPS = 1e-5
MAPS = 3 * torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


class Tiny(nn.Module):
    """(B, 3, H, W) -> (B, 8, H / 2, W / 2)."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(images)).relu())).relu()


def normalized(name: str, channels: int = 6, groups: int = 3) -> nn.Module:
    """The layer that replaced BatchNorm2d(channels), in float64 with scale and shift off 1 and 0."""
    trunk = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))
    layer = normalize(trunk, name, groups=groups, network="tiny", pretrained=False)[1].double()
    randomize(layer)
    return layer


def by_parts(maps: np.ndarray, parts: Callable[[int, int], tuple[Any, ...]]) -> np.ndarray:
    """Each value minus the mean, over the deviation, of the part of the batch that it belongs to."""
    out = np.empty_like(maps)
    for n in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            part = maps[parts(n, c)]
            out[n, c] = (maps[n, c] - part.mean()) / np.sqrt(part.var() + EPS)
    return out


PARTS: dict[str, Callable[[int, int], tuple[Any, ...]]] = {
    "batch": lambda n, c: (slice(None), c),
    "sync_batch": lambda n, c: (slice(None), c),
    "instance": lambda n, c: (n, c),
    "layer": lambda n, c: (n,),
    "group": lambda n, c: (n, slice(c // 2 * 2, c // 2 * 2 + 2)),
}


@pytest.mark.parametrize("name", PARTS)
def test_activations_are_normalized_over_their_part(name: str) -> None:
    layer = normalized(name)
    assert {key for key, _ in layer.named_parameters()} == {"weight", "bias"}
    expected = by_parts(MAPS.numpy(), PARTS[name])
    expected = expected * layer.weight.detach().numpy()[:, None, None] + layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(layer.train()(MAPS).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    if "batch" not in name:  # the rest knows no batch: an image alone, in evaluation, gets the same
        np.testing.assert_allclose(layer.eval()(MAPS[2:3]).detach().numpy(), expected[2:3], rtol=1e-9, atol=1e-9)


def test_groups_lead_from_layer_to_instance() -> None:
    def groups_of(count: int) -> Tensor:
        layer = normalized("group", groups=count)
        return layer(MAPS)

    assert torch.allclose(groups_of(1), normalized("layer")(MAPS), atol=1e-12)
    assert torch.allclose(groups_of(6), normalized("instance")(MAPS), atol=1e-12)
    plain = functional.layer_norm(MAPS, MAPS.shape[1:])  # PyTorch's own over (C, H, W)
    layer = normalized("layer")
    assert torch.allclose(layer(MAPS), plain * layer.weight[:, None, None] + layer.bias[:, None, None], atol=1e-12)


def test_weight_norm_is_g_v_over_its_length() -> None:
    trunk = normalize(Tiny(), "weight", network="tiny", pretrained=False).double()
    convolution = trunk.conv2
    parts = convolution.parametrizations.weight
    with torch.no_grad():
        parts.original0.copy_(torch.rand(8, 1, 1, 1) + 1)
        convolution.bias.copy_(torch.rand(8))
    g, v = parts.original0.detach().numpy(), parts.original1.detach().numpy()
    kernels = np.stack([g[o] * v[o] / np.sqrt((v[o] ** 2).sum()) for o in range(8)])
    maps = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    expected = functional.conv2d(maps, torch.from_numpy(kernels), convolution.bias, 1, 1, 1, 2)
    assert torch.allclose(convolution(maps), expected, atol=1e-12)
    assert isinstance(trunk.bn2, nn.Identity)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "osnet_x0_25"])
def test_weight_norm_keeps_a_fitted_network_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    trunk = BACKBONES[name]().double()
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomize(module)
            with torch.no_grad():  # as at the end of a residual block that starts as nothing
                module.weight[0] = 0.0
    trunk.eval()
    images = torch.randn(1, 3, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        before = trunk(images)
        count = sum(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
        normalize(trunk, "weight", network=name, pretrained=True)
        assert torch.allclose(trunk(images), before, rtol=1e-8, atol=1e-10 * float(before.abs().max()))
    assert before.abs().max() > 0
    assert sum(key.endswith("original0") for key in trunk.state_dict()) == count
    assert not any("running" in key for key in trunk.state_dict())


def test_cosine_layer_and_classifier_by_loops() -> None:
    layer = CosineLinear(5, 4, scale=3.0).double()
    features = torch.randn(3, 5, dtype=torch.float64)
    w = layer.weight.detach().numpy()
    expected = [[3 * f @ row / (np.linalg.norm(f) * np.linalg.norm(row)) for row in w] for f in features.numpy()]
    np.testing.assert_allclose(layer(features).detach().numpy(), expected, rtol=1e-12)
    assert layer.scale.requires_grad and layer.bias is None
    assert torch.equal(layer(torch.zeros(1, 5).double()), torch.zeros(1, 4).double())
    assert torch.autograd.gradcheck(layer, (features.requires_grad_(),))


@pytest.mark.parametrize("groups", [1, 2])
def test_cosine_convolution_by_loops(groups: int) -> None:
    layer = CosineConv2d(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=groups, bias=False)).double()
    assert layer.scale.unique().item() == pytest.approx((4 // groups * 6) ** 0.5)
    randomize(layer)
    maps = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    padded = functional.pad(maps, (0, 0, 1, 1)).numpy()
    out = layer(maps)
    assert out.shape == (2, 6, 3, 3)
    weight, wide = layer.weight.detach().numpy(), 4 // groups
    for n, o, j, k in np.ndindex(*out.shape):
        first = o // (6 // groups) * wide
        window = padded[n, first : first + wide, 2 * j : 2 * j + 3, k : k + 2]
        cosine = (window * weight[o]).sum() / np.linalg.norm(window) / np.linalg.norm(weight[o])
        assert out[n, o, j, k].item() == pytest.approx(cosine * layer.scale[o].item() + layer.bias[o].item(), rel=1e-9)
    assert torch.autograd.gradcheck(layer, (maps.requires_grad_(),))
    assert torch.equal(layer(torch.zeros_like(maps))[0, :, 0, 0], layer.bias)


@pytest.mark.parametrize(
    ("norm", "logged"),
    [
        ("instance", "discards the pretrained statistics, scale and shift of 20 batch normalizations"),
        ("group", "discards the pretrained statistics, scale and shift of 20 batch normalizations"),
        ("layer", "discards the pretrained statistics, scale and shift of 20 batch normalizations"),
        ("cosine", "discards the pretrained statistics, scale and shift of 20 batch normalizations"),
        ("weight", "folds the pretrained statistics, scale and shift of 20 batch normalizations"),
        ("batch", ""),
        ("sync_batch", ""),
    ],
)
def test_a_lost_fit_is_logged(norm: str, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    weights = torchvision.models.resnet18(num_classes=10).state_dict()
    with caplog.at_level(logging.WARNING):
        net = compose("resnet18", 3, weights=weights, norm=norm)
        compose("resnet18", 3, norm=norm)  # from scratch nothing is lost
    assert caplog.text.count("normalization ") == bool(logged)
    assert logged in caplog.text
    if not logged:
        kept = net.backbone.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in kept.items())


def test_what_cannot_be_replaced_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"osnet_x0_25: 32 groups do not divide the 16 channels of conv1\.bn; .* of 8,"
    ):
        compose("osnet_x0_25", 3, norm="group")
    with pytest.raises(InputError, match="unknown normalization 'grup'; did you mean group"):
        compose("osnet_x0_25", 3, norm="grup")
    with pytest.raises(InputError, match="for ResNets, not for osnet_x0_25"):
        compose("osnet_x0_25", 3, norm="ibn_a")
    with pytest.raises(InputError, match="caffenet has no batch normalization that group could replace"):
        compose("caffenet", 3, norm="group")
    with pytest.raises(InputError, match=r"small_local: bn4 follows connection \(LocallyConnected2d\)"):
        compose("small_local", 3, norm="weight")
    with pytest.raises(InputError, match="a 1 x 1 map leaves only zeros"):
        compose("resnet18", 3, norm="instance")(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match="unknown classifier 'cosin'"):
        compose("osnet_x0_25", 3, classifier="cosin")


def test_defaults_leave_the_network_as_it_was() -> None:
    """Names and every first weight of `osnet_x0_25` for a seed, as they were before there was a choice of norm."""
    torch.manual_seed(0)
    net = compose("osnet_x0_25", 7)
    names = hashlib.sha256("\n".join(net.state_dict()).encode()).hexdigest()
    assert names.startswith("4b5093da694ee8d2")  # of checkpoints written before
    assert [type(module) for module in (net.bnneck, net.classifier)] == [nn.Identity, nn.Linear]
    # The parts in the order in which they always drew from the generator.
    torch.manual_seed(0)
    trunk = BACKBONES["osnet_x0_25"]()
    neck, eigenlayer, classifier = NECKS["osnet_x0_25"](128), Eigenlayer(512), nn.Linear(512, 7)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    images = torch.randn(2, 3, 64, 32)
    expected = classifier(eigenlayer(neck.eval()(trunk.eval()(images).mean((2, 3)))))
    assert torch.allclose(net.eval()(images), expected, atol=1e-6)
    for part, module in (("backbone", trunk), ("neck", neck), ("eigenlayer", eigenlayer), ("classifier", classifier)):
        own = net.get_submodule(part).state_dict()
        assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_bnneck_stands_before_the_eigenlayer_without_a_shift() -> None:
    net = compose("osnet_x0_25", 7, bnneck=True)
    assert isinstance(net.bnneck, BNNeck) and net.bnneck.bias is None
    assert {name for name in net.state_dict() if name.startswith("bnneck")} == {
        f"bnneck.{part}" for part in ("weight", "running_mean", "running_var", "num_batches_tracked")
    }
    images = torch.randn(8, 3, 64, 32)
    features = net.embed(images).input.detach()
    assert torch.allclose(features.mean(0), torch.zeros(512), atol=1e-5)
    assert torch.allclose(features.var(0, unbiased=False)[features.std(0) > 0.5], torch.tensor(1.0), atol=0.05)
    freeze(net, ["norm"])
    assert not net.bnneck.weight.requires_grad
    pairs = ["MODEL.BACKBONE", "osnet_x0_25", "MODEL.NECK", "bnneck", "MODEL.NORM.NAME", "sync_batch"]
    config = build.config_from_overrides([*pairs, "MODEL.WEIGHTS", "none"], source="a test")
    synchronized = build.network(config, num_classes=7)
    kinds = {type(module).__name__ for module in synchronized.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == {"SyncBatchNorm"} and set(synchronized.state_dict()) == set(net.state_dict())
    assert synchronized.eval()(images).shape == (8, 7)


def tiny_network(monkeypatch: pytest.MonkeyPatch, **options: Any) -> ReidNetwork:
    monkeypatch.setitem(BACKBONES, "tiny", lambda **_: Tiny())
    torch.manual_seed(0)
    return compose("tiny", 4, eigenlayer={"init_std": 0.3}, dropout=0.0, norm_groups=2, **options)


TINY = [name for name in NORMS if not name.startswith("ibn")]


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
@pytest.mark.parametrize("norm", TINY)
def test_a_step_lowers_the_loss(norm: str, classifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_network(monkeypatch, norm=norm, classifier=classifier, bnneck=classifier == "cosine")
    images, labels = torch.randn(8, 3, 8, 6), torch.arange(8) % 4
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        loss = functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert losses[1] < losses[0] and losses[3] < losses[0]


@pytest.mark.parametrize("norm", [*TINY, "ibn_a", "ibn_b"])
def test_mixed_precision_and_export(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if norm.startswith("ibn"):
        torch.manual_seed(0)
        monkeypatch.setitem(BACKBONES, "resnet10", lambda **_: ResNetTrunk(ResNet(BasicBlock, [1, 1, 1, 1])))
        net = compose("resnet10", 4, norm=norm, classifier="cosine", bnneck=True)
    else:
        net = tiny_network(monkeypatch, norm=norm, classifier="cosine", bnneck=True)
    images = torch.randn(4, 3, 48, 32)
    with torch.autocast("cpu", torch.bfloat16):
        net(images).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    with torch.no_grad():
        plain = net.embed(images).output
        with torch.autocast("cpu", torch.bfloat16):
            rough = net.embed(images).output
    assert functional.cosine_similarity(plain, rough).min() > 0.99
    program = torch.export.export(net, (images,)).module()
    assert torch.allclose(program(images), net(images), atol=1e-4)


@pytest.mark.parametrize("variant", ["US", "none"])
def test_a_rotated_cosine_classifier_keeps_the_logits(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_network(monkeypatch, classifier="cosine").eval()
    images = torch.randn(6, 3, 8, 6)

    class Loader:
        def sample(self, count: int, seed: int) -> Any:
            yield images, torch.arange(6) % 4

    with torch.no_grad():
        before = net(images)
        for rotate in (True, False) if variant == "US" else (True,):
            state = TrainState("rri", copy.deepcopy(net))
            plan = same_plan(Schedule(1, (0.1,)), variant=variant, rotate_classifier=rotate, loss_images=6)
            row = decorrelate.run(state, Loader(), plan, callbacks(), round=1)  # type: ignore[arg-type]
            assert torch.allclose(state.model(images), before, atol=1e-5) == rotate
    if variant == "US":
        assert row.correlation == pytest.approx(1.0, abs=1e-6)
