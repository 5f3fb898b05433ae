"""What every pooling keeps to: shapes, number formats, gradients, export, training, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from composed_network import compose
from torch import Tensor, nn

from reid.config.loading import defaults
from reid.errors import InputError
from reid.model.pooling import POOLINGS, Pooling, pooling_options

CHANNELS = 5
MAPS = torch.randn(3, CHANNELS, 4, 3, generator=torch.Generator().manual_seed(0))
SMALL: dict[str, dict[str, Any]] = {
    "regional_weighted_gem": {"regions": 3},
    "rmac": {"levels": 2},
    "hard_vlad": {"clusters": 3},
    "netvlad": {"clusters": 3},
    "ghost_vlad": {"clusters": 3, "ghosts": 2},
}
WIDTHS = {"average_max": 2 * CHANNELS, "hard_vlad": 15, "netvlad": 15, "ghost_vlad": 15}
WITH_ATTENTION = {
    "crow": (),
    "weighted_gem": (),
    "weighted_sum": (),
    "regional_weighted_gem": (3,),
    "hard_vlad": (3,),
    "netvlad": (3,),
    "ghost_vlad": (5,),
}


def make(name: str, channels: int = CHANNELS, **options: Any) -> Pooling:
    """A pooling whose convolutions and softmax have weights that differ, as after training."""
    torch.manual_seed(1)
    pooling = POOLINGS[name](channels, **{**SMALL.get(name, {}), **options})
    for key, parameter in pooling.named_parameters():
        if key == "omega.weight":
            nn.init.normal_(parameter, std=0.3)
    return pooling


def positive(dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(2, 3, 4, 3, generator=torch.Generator().manual_seed(2)) + 0.1).to(dtype)


@pytest.mark.parametrize("name", POOLINGS)
def test_width_shape_and_type(name: str) -> None:
    pooling = make(name)
    pooled = pooling(MAPS)
    assert pooled.shape == (3, WIDTHS.get(name, CHANNELS)) and pooled.dtype == torch.float32
    assert pooling.width(CHANNELS) == pooled.shape[1]
    assert pooled.isfinite().all()


@pytest.mark.parametrize("name", POOLINGS)
def test_an_image_is_pooled_by_itself(name: str) -> None:
    pooling = make(name)
    torch.testing.assert_close(pooling(MAPS)[1:2], pooling(MAPS[1:2]))


def test_the_plain_ones_against_numpy() -> None:
    values = MAPS.numpy().astype(np.float64)
    mean, largest = values.mean((2, 3)), values.max((2, 3))
    np.testing.assert_allclose(make("average")(MAPS), mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(make("max")(MAPS), largest, rtol=1e-6)
    np.testing.assert_allclose(make("average_max")(MAPS), np.concatenate((mean, largest), 1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in POOLINGS if "l2" in pooling_options(name)])
def test_unit_length_where_wanted(name: str) -> None:
    plain, unit = make(name)(MAPS), make(name, l2=True)(MAPS)
    torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("name", POOLINGS)
def test_bfloat16_maps_are_pooled_in_float32(name: str) -> None:
    pooling, maps = make(name), MAPS.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(maps)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pooling(maps.float()))
    if name in WITH_ATTENTION:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(pooling.attention(maps), pooling.attention(maps.float()))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_in_float64(name: str) -> None:
    pooling = make(name, channels=3).double()
    names, parameters = zip(*pooling.named_parameters(), strict=True) if list(pooling.parameters()) else ((), ())

    def pooled(maps: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(pooling, dict(zip(names, values, strict=True)), (maps,))

    given = [tensor.detach().requires_grad_() for tensor in (positive(), *parameters)]
    assert torch.autograd.gradcheck(pooled, given)


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_stay_finite_where_maps_are_zero(name: str) -> None:
    pooling = make(name)
    maps = MAPS.relu()
    maps[0] = 0
    maps[1, :, 1] = 0
    maps[2, 3] = 0
    maps.requires_grad_()
    pooling(maps).square().sum().backward()
    gradients = [maps.grad, *(p.grad for p in pooling.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", POOLINGS)
def test_it_exports_for_any_batch(name: str) -> None:
    pooling = make(name).eval()
    program = torch.export.export(pooling, (MAPS,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    more = torch.cat((MAPS, 2 * MAPS.flip(0)))
    torch.testing.assert_close(program.module()(more), pooling(more))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_training_step_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU())
    pooling = make(name)
    classifier = nn.Linear(pooling.width(CHANNELS), 4)
    network = nn.Sequential(trunk, pooling, classifier)
    images, labels = torch.randn(16, 3, 6, 4), torch.arange(16) % 4
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(network(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    assert all(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", POOLINGS)
def test_attention_of_those_that_weigh_places(name: str) -> None:
    pooling = make(name)
    if name not in WITH_ATTENTION:
        with pytest.raises(InputError, match="no attention map to visualize"):
            pooling.attention(MAPS)
        return
    weights = pooling.attention(MAPS)
    assert weights.shape == (3, *WITH_ATTENTION[name], 4, 3) and weights.min() >= 0
    if "vlad" in name:
        torch.testing.assert_close(weights.sum(1), torch.ones(3, 4, 3))
    elif name != "crow":
        torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(weights.shape[:-2]))


@pytest.mark.parametrize("name", POOLINGS)
def test_the_options_are_those_that_the_builder_takes(name: str) -> None:
    taken = list(inspect.signature(POOLINGS[name]).parameters)
    assert taken[0] == "channels"
    assert list(pooling_options(name)) == taken[1:]
    keys = {key.lower() for key in defaults().MODEL.POOLING}
    assert set(taken[1:]) <= keys, "every option has a key of its name in MODEL.POOLING"


@pytest.mark.parametrize("name", POOLINGS)
def test_it_fits_into_the_network(name: str) -> None:
    torch.manual_seed(0)
    options = {"clusters": 4} if "vlad" in name else {}
    network = compose("resnet18", 3, last_stride=1, pooling=name, pooling_options=options)
    images = torch.randn(2, 3, 128, 64, generator=torch.Generator().manual_seed(3))
    d_in = network.pooling.width(512)
    embedding = network.eval().embed(images)
    assert embedding.input.shape == (2, d_in) and embedding.output.shape == (2, min(1024, d_in))
    again = compose("resnet18", 3, last_stride=1, pooling=name, pooling_options=options).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.embed(images).output, embedding.output)


def test_a_huge_eigenlayer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    options = {"clusters": 140, "init": "random"}
    compose("resnet18", 3, pooling="netvlad", pooling_options=options)
    assert "71680 x 1024: 0.29 GB" in caplog.text
    caplog.clear()
    compose("resnet18", 3, pooling="netvlad", pooling_options={"clusters": 64})
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gem", {"p": 0.0}, "p = 0.0 .* must be above 0"),
        ("weighted_gem", {"p": -1.0}, "p = -1.0 .* must be above 0"),
        ("regional_weighted_gem", {"p": float("nan")}, "p = nan .* must be above 0"),
        ("regional_weighted_gem", {"regions": 0}, "1 region or more, not 0"),
        ("rmac", {"levels": 0}, "1 level or more, not 0"),
        ("hard_vlad", {"clusters": 1}, "2 clusters or more, not 1"),
        ("netvlad", {"init": "kmeans"}, "unknown initialization of a VLAD 'kmeans'; did you mean kmeans_v"),
        ("ghost_vlad", {"ghosts": -1}, "-1 ghost clusters"),
    ],
)
def test_options_that_cannot_work(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        POOLINGS[name](CHANNELS, **options)
