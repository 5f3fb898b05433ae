"""Locally connected and tiled layers: by loops in float64, their limits, their gradients, their costs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from composed_network import randomize
from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError
from reid.model.backbones.small import FullConnection
from reid.model.connection import LocallyConnected2d, TiledConv2d, connection_costs

Pair = tuple[int, int]
GEOMETRIES = [(1, 0, 3), (2, 1, 3), ((2, 1), (0, 2), (3, 2)), ((1, 3), (2, 0), (2, 4)), (3, 2, 5)]
DOCS = Path(__file__).parents[3] / "docs" / "parts.md"


def by_loops(maps: Tensor, layer: LocallyConnected2d | TiledConv2d, periods: Pair) -> Tensor:
    """The formula position by position; kernel (o, x, y, c) of position (j mod, k mod)."""
    (kh, kw), (down, right), (top, left) = layer.kernel_size, layer.stride, layer.padding
    batch, _, height, width = maps.shape
    rows, columns = (height + 2 * top - kh) // down + 1, (width + 2 * left - kw) // right + 1
    out = maps.new_zeros(batch, layer.out_channels, rows, columns)
    for j in range(rows):
        for k in range(columns):
            kernel, bias = (p[j % periods[0], k % periods[1]] for p in (layer.weight, layer.bias))
            for y in range(kh):
                for x in range(kw):
                    row, column = j * down + y - top, k * right + x - left
                    if 0 <= row < height and 0 <= column < width:
                        out[:, :, j, k] += maps[:, :, row, column] @ kernel[:, x, y].T
            out[:, :, j, k] += bias
    return out


@pytest.mark.parametrize(("stride", "padding", "kernel"), GEOMETRIES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_local_connection_is_its_formula(
    stride: int | Pair, padding: int | Pair, kernel: int | Pair, channels_last: bool
) -> None:
    layer = LocallyConnected2d(3, 4, kernel, input_size=(9, 8), stride=stride, padding=padding).double()
    randomize(layer)
    maps = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    given = maps.contiguous(memory_format=torch.channels_last) if channels_last else maps
    out = layer(given)
    assert torch.allclose(out, by_loops(maps, layer, layer.output_size), atol=1e-12)
    assert out.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize(("stride", "padding", "kernel"), GEOMETRIES)
@pytest.mark.parametrize("tile", [1, 2, (1, 3), (3, 2), (4, 7), 20])
def test_tiled_convolution_is_its_formula(
    stride: int | Pair, padding: int | Pair, kernel: int | Pair, tile: int | Pair
) -> None:
    layer = TiledConv2d(3, 2, kernel, tile=tile, stride=stride, padding=padding).double()
    randomize(layer)
    maps = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert torch.allclose(layer(maps), by_loops(maps, layer, layer.tile), atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "kernel"), GEOMETRIES)
def test_the_limits_of_the_tile(stride: int | Pair, padding: int | Pair, kernel: int | Pair) -> None:
    maps = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    convolution = nn.Conv2d(3, 4, kernel, stride=stride, padding=padding).double()
    one = TiledConv2d(3, 4, kernel, tile=1, stride=stride, padding=padding).double()
    local = LocallyConnected2d(3, 4, kernel, input_size=(9, 8), stride=stride, padding=padding).double()
    most = TiledConv2d(3, 4, kernel, tile=local.output_size, stride=stride, padding=padding).double()
    shared = LocallyConnected2d(3, 4, kernel, input_size=(9, 8), stride=stride, padding=padding).double()
    randomize(local)
    most.load_state_dict(local.state_dict())
    with torch.no_grad():
        one.weight[0, 0] = shared.weight[:] = convolution.weight.permute(0, 3, 2, 1)
        one.bias[0, 0] = shared.bias[:] = convolution.bias
    assert torch.allclose(one(maps), convolution(maps), atol=1e-12)
    assert torch.allclose(shared(maps), convolution(maps), atol=1e-12)
    assert torch.allclose(most(maps), local(maps), atol=1e-12)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        LocallyConnected2d(2, 3, (3, 2), input_size=(5, 4), stride=(1, 2), padding=(1, 0)),
        LocallyConnected2d(2, 3, 2, input_size=(5, 4)),
        TiledConv2d(2, 3, 3, tile=(2, 1), padding=1),
        TiledConv2d(2, 2, (2, 3), tile=(3, 2), stride=(1, 2), padding=(0, 2)),
        TiledConv2d(2, 2, 2, tile=(6, 2), bias=False),
    ],
)
def test_gradients(layer: nn.Module, channels_last: bool) -> None:
    layer = layer.double()
    randomize(layer)
    parameters = {name: p.detach().requires_grad_() for name, p in layer.named_parameters()}
    maps = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def forward(given: Tensor, *values: Tensor) -> Tensor:
        if channels_last:
            given = given.contiguous(memory_format=torch.channels_last)
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, named, given)

    assert torch.autograd.gradcheck(forward, (maps, *parameters.values()))


@pytest.mark.parametrize("kind", ["local", "tiled", "tiled far apart"])
def test_mixed_precision_and_export(kind: str) -> None:
    layer: nn.Module = LocallyConnected2d(3, 4, 3, input_size=(7, 6), padding=1)
    if kind != "local":
        layer = TiledConv2d(3, 4, 3, tile=2 if kind == "tiled" else 5, padding=1)
    maps = torch.randn(2, 3, 7, 6)
    plain = layer(maps)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(maps)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), plain, atol=0.1)
    found = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    layer.zero_grad()
    layer(maps).square().sum().backward()
    for grad, parameter in zip(found, layer.parameters(), strict=True):
        assert grad.dtype == torch.float32
        assert functional.cosine_similarity(grad.flatten(), parameter.grad.flatten(), dim=0) > 0.999
    program = torch.export.export(layer.eval(), (maps,)).module()
    assert torch.allclose(program(maps), plain, atol=1e-5)


def test_a_map_smaller_than_a_kernel_is_refused() -> None:
    with pytest.raises(InputError, match=r"a map of 4 x 9 with padding 0, 0 is smaller than its kernel of 5 x 5"):
        LocallyConnected2d(3, 4, 5, input_size=(4, 9))
    with pytest.raises(InputError, match="smaller than its kernel"):
        TiledConv2d(3, 4, 5, padding=1)(torch.zeros(1, 3, 9, 2))
    with pytest.raises(InputError, match="smaller than its kernel"):
        connection_costs(3, 4, 5, input_size=(4, 9))


def test_what_else_cannot_be_built() -> None:
    with pytest.raises(InputError, match=r"not \(0, 0\)"):
        TiledConv2d(3, 4, 3, tile=0)
    with pytest.raises(InputError, match="got 0 and 4"):
        TiledConv2d(0, 4, 3)
    with pytest.raises(InputError, match=r"stride \(0, 0\)"):
        LocallyConnected2d(3, 4, 3, input_size=(5, 5), stride=0)
    layer = LocallyConnected2d(3, 4, 3, input_size=(5, 5))
    with pytest.raises(InputError, match=r"3 x 5 x 5, not 3 x 6 x 5"):
        layer(torch.zeros(1, 3, 6, 5))
    with pytest.raises(InputError, match="of 3 input channels got maps with 2"):
        TiledConv2d(3, 4, 3)(torch.zeros(1, 2, 6, 5))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_costs_are_those_of_the_layers(bias: bool) -> None:
    given = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "bias": bias}
    costs = {cost.pattern: cost for cost in connection_costs(3, 4, input_size=(9, 8), tile=(2, 3), **given)}
    size = (5, 7)
    layers = {
        "full": nn.Linear(3 * 9 * 8, 4 * math.prod(size), bias=bias),
        "local": LocallyConnected2d(3, 4, input_size=(9, 8), **given),
        "tiled": TiledConv2d(3, 4, tile=(2, 3), **given),
        "convolution": nn.Conv2d(3, 4, **given),
    }
    assert {name: cost.parameters for name, cost in costs.items()} == {n: count(layer) for n, layer in layers.items()}
    assert costs["full"].multiply_adds == 3 * 9 * 8 * 4 * 5 * 7
    assert {costs[name].multiply_adds for name in ("local", "tiled", "convolution")} == {3 * 4 * 3 * 2 * 5 * 7}


def test_the_table_of_the_documents_is_computed() -> None:
    text = DOCS.read_text(encoding="utf-8").split("## Connection")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (full|local|tiled|convolution)[^|]*\| ([\d,]+) \| ([\d,]+) \|", text, flags=re.M)
    documented = [(name, int(a.replace(",", "")), int(b.replace(",", ""))) for name, a, b in rows]
    costs = connection_costs(32, 32, 3, input_size=(16, 8), padding=1, tile=2, bias=False)
    assert documented == [(cost.pattern, cost.parameters, cost.multiply_adds) for cost in costs]
    assert count(FullConnection(32, (16, 8))) == costs[0].parameters
