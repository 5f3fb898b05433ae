"""Recognition of weights and their groups, and the order of the survey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from composed_network import compose
from torch import nn

from reid.decorrelation import gaussian_correlation
from reid.diagnostics.survey import embedding_tables, find_layer, find_layers, first_to_look_at, network_groups, survey
from reid.errors import InputError
from reid.io.state_dicts import read_state_dict

# One network of each family that torchvision classifies with; RegNet cannot be made on the meta device.
NETWORKS = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnext50_32x4d", "wide_resnet50_2"),
    *("shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11"),
    *("regnet_x_400mf", "regnet_y_400mf", "vit_b_32"),
)
OF_TIMM = (
    "resnet18",
    "convnext_atto",
    "mobilenetv4_conv_small",
    "resnest14d",
    "repvgg_a0",
    "ghostnet_100",
    "regnety_002",
    "vit_tiny_patch16_224",
)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_guessed_from_shapes_are_those_of_the_network(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
    truth = network_groups(model)
    layers = find_layers(model.state_dict())
    assert {layer.name: layer.groups for layer in layers} == truth
    assert {layer.groups_from for layer in layers} == {"shapes"}


@pytest.mark.parametrize("name", OF_TIMM)
def test_groups_of_networks_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    truth = network_groups(model)
    assert {layer.name: layer.groups for layer in find_layers(model.state_dict())} == truth


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_every_layer_of_a_network_is_measured(name: str) -> None:
    torch.manual_seed(0)
    layers = find_layers(torchvision.models.get_model(name, weights=None).state_dict())
    rows = survey(layers)
    assert {row["name"] for row in rows} == {layer.name for layer in layers}
    assert all(
        row["broken"] is None and (row["spectral"] is None) == row["kind"].startswith("depthwise") for row in rows
    )
    json.dumps(rows, allow_nan=False)


def test_our_backbones() -> None:
    with torch.device("meta"):
        models = [compose(name, 5) for name in ("osnet_x0_25", "resnet50")]
    for model in models:
        truth = network_groups(model)
        assert {layer.name: layer.groups for layer in find_layers(model.state_dict())} == truth
        known = find_layers(model.state_dict(), network=truth)
        assert {layer.groups_from for layer in known} == {"network"}
    assert len(truth) == 53 + 2  # ResNet-50 without its fc; Eigenlayer and classifier
    osnet = {layer.name: layer for layer in find_layers(models[0].state_dict())}
    assert osnet["backbone.conv2.0.conv2a.conv2.weight"].kind == "depthwise convolution 3×3"
    assert osnet["backbone.conv2.0.gate.fc2.weight"].groups == 1  # one channel in, 16 out: as depthwise ones look


def test_what_is_a_weight() -> None:
    tensors = {
        "conv.weight": torch.ones(8, 3, 3, 3),
        "temporal.weight": torch.ones(8, 8, 3),
        "attention.in_proj_weight": torch.ones(24, 8),
        "embedding.weight": torch.ones(8, 8),  # a layer: it has a bias
        "embedding.bias": torch.ones(8),
        "patch_embed.proj.weight": torch.ones(8, 3, 4, 4),
        "token_embedding.weight": torch.ones(100, 8),
        "norm1.weight": torch.ones(8, 8),
        "bn.weight": torch.ones(8),
        "pos_embed": torch.ones(1, 7, 8),
        "index.weight": torch.ones(8, 8, dtype=torch.int64),
        "empty.weight": torch.ones(0, 8),
        "conv.bias": torch.ones(8),
    }
    names = [layer.name for layer in find_layers(tensors)]
    assert names == [*list(tensors)[:4], "patch_embed.proj.weight"]
    assert embedding_tables(tensors, find_layers(tensors)) == ["token_embedding.weight"]
    # A network tells what its layers are.
    network = {name: 1 for name in ("token_embedding.weight", "norm1.weight", "bn.weight", "index.weight")}
    known = find_layers(tensors, network=network)
    assert [layer.name for layer in known] == [*names, "token_embedding.weight", "norm1.weight"]
    assert embedding_tables(tensors, known) == []


def test_groups_given_by_the_caller_win() -> None:
    tensors = {"a.weight": torch.randn(8, 8, 3, 3), "b.weight": torch.randn(8, 4, 3, 3)}
    assert [layer.groups for layer in find_layers(tensors)] == [1, 2]
    layers = find_layers(tensors, network={"b.weight": 2}, groups={"b": 1, "a.weight": 4})
    assert [(layer.groups, layer.groups_from) for layer in layers] == [(4, "given"), (1, "given")]
    with pytest.raises(InputError, match=r"b\.weight: 8 kernels cannot be in 3 groups"):
        find_layers(tensors, groups={"b": 3})
    with pytest.raises(InputError, match=r"x\.pth: no layer 'bb'; did you mean b\.weight"):
        find_layers(tensors, groups={"bb": 2}, source="x.pth")


def test_unknown_layers_get_near_names() -> None:
    tensors = torchvision.models.resnet18(weights=None).state_dict()
    layers = find_layers(tensors)
    for name in ("layer4.1.conv2", "layer4.1.conv2.weight"):
        assert find_layer(tensors, layers, name).name == "layer4.1.conv2.weight"
    for name in ("layer4.1.convv2", "layer4.1.conv9.weight", "conv2"):
        with pytest.raises(InputError, match=r"did you mean .*conv2\.weight.*\? without --layer all") as error:
            find_layer(tensors, layers, name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"no layer 'zzz'; it has 21 weights; without"):
        find_layer(tensors, layers, "zzz")
    with pytest.raises(InputError, match=r"bn1\.weight: a torch\.float32 tensor of shape \(64,\) is not a weight"):
        find_layer(tensors, layers, "bn1")


def test_rows_are_sorted_by_correlation_relative_to_chance() -> None:
    torch.manual_seed(0)
    shared = torch.randn(1, 32)
    tensors = {
        "independent.weight": torch.randn(20, 32),
        "depthwise.weight": torch.randn(20, 1, 3, 3),
        "nan.weight": torch.randn(4, 4).index_put((torch.tensor([1]), torch.tensor([2])), torch.tensor(torch.nan)),
        "orthogonal.weight": torch.linalg.qr(torch.randn(32, 20)).Q.T,
        "zero.weight": torch.zeros(3, 3),
        "correlated.weight": torch.randn(20, 32) + 2 * shared,
        "many.weight": torch.randn(200, 32),  # by S(W) alone it would look the most correlated
    }
    rows = {row["name"].removesuffix(".weight"): row for row in survey(find_layers(tensors))}
    order = ["correlated", "many", "independent", "orthogonal", "depthwise", "nan", "zero"]
    assert [name for name in rows if name != "many"] == [name for name in order if name != "many"]
    assert rows["many"]["correlation"] < rows["correlated"]["correlation"]
    assert next(iter(rows)) == "correlated"
    for name in ("many", "independent"):
        assert rows[name]["ratio"] == pytest.approx(1, abs=0.05)
        assert rows[name]["gaussian"] == gaussian_correlation(32, rows[name]["k"])
    assert rows["nan"]["broken"].startswith("1 of 16 entries are NaN or infinite, at [1, 2]")
    assert rows["zero"]["broken"] == "all 9 entries are zero"
    assert rows["depthwise"]["broken"] is None and rows["depthwise"]["correlation"] is None
    assert rows["orthogonal"]["correlation"] == pytest.approx(1)


def test_what_to_look_at_first() -> None:
    torch.manual_seed(0)
    dependent = torch.randn(20, 32)
    dependent[3] = dependent[4]
    dead = torch.randn(20, 32)
    dead[2] *= 1e-30
    tensors = {
        "independent.weight": torch.randn(20, 32),
        "dependent.weight": dependent,
        "dead.weight": dead,
        "shared.weight": torch.randn(20, 32) + 2 * torch.randn(1, 32),
        "depthwise.weight": torch.randn(20, 1, 3, 3),
        "zero.weight": torch.zeros(3, 3),
    }
    found = {
        entry["name"].removesuffix(".weight"): entry["why"] for entry in first_to_look_at(survey(find_layers(tensors)))
    }
    assert next(iter(found)) == "shared" and set(found) == {"shared", "dependent", "dead"}
    assert "1 of 20 eigenvalues are above the Marchenko–Pastur bulk, 0 after a shuffle" in " ".join(found["shared"])
    assert "linear combinations" in found["dependent"][1] and found["dead"][1] == "1 of 20 weight vectors are dead"
    assert first_to_look_at(survey(find_layers({"a.weight": torch.randn(20, 32)}))) == []


def test_real_weights(real_weights: Path) -> None:
    """S(W) of every weight of the published OSNet, by NumPy in float64 and by loops over groups."""
    tensors, _, _ = read_state_dict(real_weights / "osnet_x0_25_imagenet.pth")
    rows = survey(find_layers(tensors))
    assert len(rows) == 153 and sum(row["correlation"] is None for row in rows) > 60
    for row in rows:
        weight = tensors[row["name"]].numpy().astype(np.float64).reshape(row["k"], -1)
        if row["correlation"] is not None:
            gram = weight @ weight.T
            assert row["correlation"] == pytest.approx(np.trace(gram) / np.abs(gram).sum(), rel=1e-9)


def test_a_module_with_every_kind_of_groups() -> None:
    grouped = (nn.Conv2d(8, 8, 3, groups=groups) for groups in (4, 8))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *grouped, nn.Conv1d(8, 4, 1))
    assert [layer.groups for layer in find_layers(model.state_dict())] == [1, 4, 8, 1]
    assert list(network_groups(model).values()) == [1, 4, 8, 1]
