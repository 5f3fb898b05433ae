"""The shape of a spectrum, against weightwatcher, planted structure and direct computations."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from reid.diagnostics import gram
from reid.diagnostics.gram import products, squares
from reid.diagnostics.spectral import describe_spectrum, fit_bulk, fit_power_law, kernel_slices
from reid.diagnostics.survey import survey_layer
from reid.diagnostics.weights import Layer
from reid.io.json_yaml import flatten
from reid.model.backbones import build_backbone


def heavy(rows: int, columns: int, *kernel: int) -> torch.Tensor:
    """A weight whose spectrum has a heavy tail."""
    return torch.randn(rows, columns, *kernel) @ torch.diag(1 + torch.rand(kernel[-1] if kernel else columns) ** -0.4)


def middle_layer(name: str) -> tuple[str, nn.Module]:
    """The layer in the middle of a network, with random weights; WeightWatcher does not know groups."""
    with torch.device("meta"):
        if name in torchvision.models.list_models():
            network = torchvision.models.get_model(name, weights=None)
        else:
            network = build_backbone(name, weights=None, source="none")
    layers = [
        (own, module)
        for own, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1
    ]
    own, layer = layers[len(layers) // 2]
    layer.to_empty(device="cpu").reset_parameters()
    return f"{name}.{own}".replace(".", "-"), layer


def test_every_quantity_is_that_of_weightwatcher() -> None:
    pytest.importorskip("weightwatcher")
    logging.disable(logging.CRITICAL)
    import weightwatcher

    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {
            "linear": nn.Linear(70, 90),
            "heavy": nn.Linear(60, 40),
            "wide": nn.Conv2d(8, 40, 3),
            "square": nn.Conv2d(24, 24, 3),
            "one": nn.Conv2d(32, 64, 1),
        }
    )
    layers["heavy"].weight.data = heavy(40, 60)
    networks = ("resnet18", "squeezenet1_1", "densenet121", "mobilenet_v3_small", "swin_t", "osnet_x0_25")
    layers.update(dict(map(middle_layer, networks)))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            watcher = weightwatcher.WeightWatcher(model=layers)
            rows = watcher.analyze(detX=True, conv2d_norm=False).to_dict("records")
    finally:
        logging.disable(logging.NOTSET)
    assert {row["longname"] for row in rows} == set(layers) and len(layers) == 11
    for row in rows:
        ours = describe_spectrum(Layer(row["longname"], layers.get_parameter(f"{row['longname']}.weight")))
        assert ours is not None
        compared = {key: value for key, value in ours.items() if key in row}
        assert len(compared) == 21
        assert compared == pytest.approx({key: row[key] for key in compared}, rel=1e-6), row["longname"]
        # What the page on diagnostics derives of ours instead of storing it.
        assert row["lambda_max"] == row["xmax"] == pytest.approx(ours["spectral_norm"])
        assert row["sv_max"] == pytest.approx(math.sqrt(ours["spectral_norm"]))
        assert row["num_ERG_spikes"] == ours["detX_num"]
        assert row["ERG_gap"] == ours["detX_num"] - ours["num_pl_spikes"]


def test_the_exponent_of_a_power_law() -> None:
    values = np.sort(2.0 * (1 - np.random.default_rng(0).random(4000)) ** (-1 / 1.5))
    fit = fit_power_law(values)
    assert abs(fit["alpha"] - 2.5) < 3 * fit["sigma"] and fit["D"] < 0.03
    tail = values[values >= fit["xmin"]]
    assert len(tail) == fit["num_pl_spikes"]
    assert fit["alpha"] == pytest.approx(1 + len(tail) / sum(math.log(value / fit["xmin"]) for value in tail))
    below = np.array([(tail < value).mean() for value in tail])
    assert fit["D"] == pytest.approx(np.abs(1 - (tail / fit["xmin"]) ** (1 - fit["alpha"]) - below).max())
    # Any other start of the tail fits worse; the fit ignores the scale.
    assert fit["D"] <= fit_power_law(values[values > fit["xmin"]])["D"]
    scaled = fit_power_law(values * 1e-30)
    assert scaled["alpha"] == pytest.approx(fit["alpha"]) and scaled["xmin"] == pytest.approx(fit["xmin"] * 1e-30)
    for few in (values[:19], np.ones(50)):
        assert set(fit_power_law(few).values()) == {None}


@pytest.mark.parametrize("count", [20, 21, 57, 300])
@pytest.mark.parametrize("family", ["bulk", "tail", "equal"])
def test_no_start_of_the_tail_fits_better(family: str, count: int) -> None:
    random = np.random.default_rng(count)
    spectra = {
        "bulk": np.linalg.svd(random.normal(size=(2 * count, count)), compute_uv=False) ** 2,
        "tail": random.pareto(2.0, count) + 1,
        "equal": np.repeat(random.random(10), count // 10 + 1)[:count],
    }
    values = np.sort(spectra[family])
    fit = fit_power_law(values)
    distances = []
    for tail in (values[i:] for i in range(count) if values[i] < values[-1]):
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        below = np.arange(len(tail)) / len(tail)
        distances.append(np.abs(1 - (tail / tail[0]) ** (1 - alpha) - below).max())
    assert fit["D"] == pytest.approx(min(distances)) and fit["num_pl_spikes"] == count - int(np.argmin(distances))


@pytest.mark.parametrize("shape", [(12, 9, 7), (3, 7, 40)])
def test_squares_are_those_of_an_svd(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # One is ill conditioned, one of rank 2, and one nearly zero beside the others.
    matrices[0] *= torch.logspace(0, -12, shape[2], dtype=torch.float64)
    matrices[1, :, 2:] = matrices[1, :, :1]
    matrices[2] *= 1e-60
    found, truth = squares(matrices), torch.linalg.svdvals(matrices).square().flip(1)
    regular = truth > 1e-28 * truth[:, -1:]
    assert found[regular].tolist() == pytest.approx(truth[regular].tolist(), rel=1e-7)
    assert bool((found[~regular] <= 1e-28 * truth[1, -1]).all()) and bool((found >= 0).all())
    known = products(matrices)
    assert known.squares[regular].tolist() == pytest.approx(truth[regular].tolist(), rel=1e-7)
    torch.testing.assert_close(known.gram, matrices.transpose(1, 2) @ matrices, rtol=1e-12, atol=1e-130)


def test_known_values_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = [Layer("linear", torch.randn(24, 30)), Layer("convolution", torch.randn(24, 30, 2, 1))]
    layers += [Layer("dead", torch.cat([torch.randn(20, 30), torch.zeros(4, 30)]))]
    alone = [describe_spectrum(layer) for layer in layers]
    computed: list[torch.Tensor] = []

    def counted(matrices: torch.Tensor) -> torch.Tensor:
        computed.append(matrices)
        return squares(matrices)

    monkeypatch.setattr(gram, "squares", counted)
    for layer, numbers in zip(layers, alone, strict=True):
        computed.clear()
        known = dict(flatten(survey_layer(layer)["spectral"]))
        assert known == pytest.approx(dict(flatten(numbers or {})), rel=1e-9)
        # Those of the shuffled weight, and of one with kernel positions or dead vectors its own.
        assert len(computed) == (1 if layer.name == "linear" else 2)


def test_the_bulk_and_planted_spikes() -> None:
    random, found = np.random.default_rng(0), []
    for spikes in (0, 0, 1, 4):
        matrix = 0.3 * random.normal(size=(300, 120))
        for column in range(spikes):
            matrix += np.outer(random.normal(size=300), np.eye(120)[column]) * (1 + column)
        bulk = fit_bulk({(300, 120): np.sort(np.linalg.svd(matrix, compute_uv=False) ** 2)})
        found.append(bulk["num_spikes"])
        assert bulk["bulk_max"] == pytest.approx(0.09 * (math.sqrt(300) + math.sqrt(120)) ** 2, rel=0.05)
        assert bulk["bulk_min"] == pytest.approx(0.09 * (math.sqrt(300) - math.sqrt(120)) ** 2, rel=0.05)
        assert (bulk["mp_softrank"] > 0.9) == (spikes == 0)
    assert found == [0, 0, 1, 4]


def test_chance_makes_a_spike_in_one_of_a_hundred_layers() -> None:
    random = torch.Generator().manual_seed(0)
    values = (
        torch.linalg.svdvals(torch.randn(400, 9, 30, 20, generator=random)).square().flatten(1).sort().values.numpy()
    )
    share = np.mean([fit_bulk({(30, 20): row})["num_spikes"] > 0 for row in values])
    assert share < 0.05


def test_groups_and_kernel_positions_have_their_own_matrices() -> None:
    torch.manual_seed(0)
    layer = Layer("grouped", torch.randn(12, 5, 3, 2), groups=3)
    (slices,) = kernel_slices(layer)
    assert slices.shape == (18, 5, 4)
    wanted = sorted(
        value**2
        for group in range(3)
        for y in range(3)
        for x in range(2)
        for value in np.linalg.svd(layer.tensor[4 * group : 4 * group + 4, :, y, x].double().numpy(), compute_uv=False)
    )
    found = describe_spectrum(layer)
    assert found is not None and found["num_evals"] == 72 and (found["N"], found["M"], found["rf"]) == (5, 4, 6)
    assert found["norm"] == pytest.approx(sum(wanted)) and found["spectral_norm"] == pytest.approx(wanted[-1])
    assert found["shuffled"]["norm"] == pytest.approx(found["norm"])
    assert found["alpha"] == pytest.approx(fit_power_law(np.array(wanted))["alpha"])
    assert describe_spectrum(Layer("depthwise", torch.randn(12, 1, 3, 3), groups=12)) is None


def test_a_shuffle_removes_structure_and_is_repeatable() -> None:
    torch.manual_seed(0)
    layer = Layer("low rank", torch.randn(60, 80) + 3 * torch.randn(60, 2) @ torch.randn(2, 80))
    found = describe_spectrum(layer, seed=1)
    assert found is not None
    assert (found["num_spikes"], found["shuffled"]["num_spikes"]) == (2, 0)
    assert found["ww_softrank"] < 0.5 and found["rand_distance"] > 0.1
    assert found == describe_spectrum(layer, seed=1) != describe_spectrum(layer, seed=2)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(30, 40),
        torch.diag(torch.arange(1.0, 31.0)).double() * 1e-60,
        torch.randn(40, 1),
        torch.cat([torch.zeros(30, 40), torch.randn(3, 40)]),
        torch.eye(25),
        torch.linalg.qr(torch.randn(64, 40).double()).Q,
    ],
    ids=["rank one", "tiny", "one input", "zero rows", "identity", "orthogonal"],
)
def test_degenerate_weights_give_numbers(tensor: torch.Tensor) -> None:
    found = describe_spectrum(Layer("a", tensor.double()))
    assert found is not None
    json.dumps(found, allow_nan=False)
    # Rounding errors are no bulk, and what is above them no spikes.
    assert (found["num_spikes"] is None) == (found["M"] == 1 or found["matrix_rank"] <= found["M"] / 2)
    assert found["matrix_rank"] == int(torch.linalg.matrix_rank(tensor.double()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(40, 64), (256, 256), (64, 512)], ids=str)
def test_an_orthogonal_weight_has_no_tail(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64 if dtype == torch.float64 else torch.float32))
    found = describe_spectrum(Layer("a", weight.to(dtype)))
    assert found is not None and found["alpha"] is None and found["shuffled"]["alpha"] > 1


@pytest.mark.parametrize("shape", [(30, 40), (24, 8, 3, 3)], ids=["linear", "convolution"])
def test_dead_vectors_are_as_if_they_were_not_there(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    alive = torch.randn(shape)
    alive[1] = 2 * alive[0]
    full = torch.cat([torch.full((40, *shape[1:]), 3e-42), alive[:9], torch.zeros(2, *shape[1:]), alive[9:]])
    assert describe_spectrum(Layer("a", full)) == describe_spectrum(Layer("a", alive))


def test_groups_with_different_numbers_of_dead_vectors() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 30, 3, 3)
    weight[[3, 8]] = 1e-40
    weight[20:30] = 0.0
    layer = Layer("grouped", weight, groups=4)
    assert [tuple(matrices.shape) for matrices in kernel_slices(layer)] == [(9, 30, 8), (18, 30, 10)]
    parts = [describe_spectrum(Layer("part", own)) for own in (weight[[0, 1, 2, 4, 5, 6, 7, 9]], weight[10:20])]
    parts.append(describe_spectrum(Layer("part", weight[30:])))
    found = describe_spectrum(layer)
    assert found is not None and (found["N"], found["M"], found["num_evals"]) == (30, 10, 252)
    for key in ("num_evals", "norm", "matrix_rank", "rank_loss"):
        assert found[key] == pytest.approx(sum(part[key] for part in parts if part)), key
    assert (found["num_spikes"], found["shuffled"]["num_spikes"]) == (0, 0)
    assert found["bulk_max"] == pytest.approx((math.sqrt(30) + math.sqrt(10)) ** 2, rel=0.05)
    assert found["sigma_mp"] == pytest.approx(1.0, rel=0.05)
    # A planted direction stands out of the group with fewer vectors too.
    weight[[0, 1, 2, 4, 5, 6, 7, 9], :, 1, 1] += 2 * torch.randn(30)
    spiked = describe_spectrum(layer)
    assert spiked is not None and spiked["num_spikes"] == 1
    # Of a pair of vectors that see one channel, one is alive: only lengths are left.
    assert describe_spectrum(Layer("pairs", torch.tensor([1.0, 0.0] * 5).reshape(10, 1, 1, 1), groups=5)) is None
