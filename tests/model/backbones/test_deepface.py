"""DeepFace: every published size, its parameters, what it refuses."""

from __future__ import annotations

import logging

import pytest
import torch
from composed_network import compose

from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.necks import NECKS

# Figure 2 of Taigman et al. 2014: maps and their size after each layer.
SIZES = {"c1": (32, 142), "m2": (32, 71), "c3": (16, 63), "l4": (16, 55), "l5": (16, 25), "l6": (16, 21)}
# One bias per position of a local layer.
PARAMETERS = {
    "c1": 32 * (3 * 11**2 + 1),
    "c3": 16 * (32 * 9**2 + 1),
    "l4": 55**2 * 16 * (16 * 9**2 + 1),
    "l5": 25**2 * 16 * (16 * 7**2 + 1),
    "l6": 21**2 * 16 * (16 * 5**2 + 1),
    "neck": 4096 * (16 * 21**2 + 1),
}


def test_sizes_and_parameters_are_the_published_ones() -> None:
    torch.manual_seed(0)
    net = compose("deepface", 5, pooling="flatten").eval()
    found = {}
    for name, layer in net.backbone.named_children():
        layer.register_forward_hook(lambda module, given, out, name=name: found.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        embedding = net.embed(torch.randn(1, 3, 152, 152))
    assert found == {name: (channels, size, size) for name, (channels, size) in SIZES.items()}
    assert embedding.input.shape == (1, 4096) and embedding.output.shape == (1, 1024)
    assert embedding.input.min() == 0  # after the ReLU
    assert 0.01 < embedding.input.std() < 100  # the first weights let the image through
    parts = {**dict(net.backbone.named_children()), "neck": net.neck}
    counts = {name: sum(p.numel() for p in parts[name].parameters()) for name in PARAMETERS}
    assert counts == PARAMETERS


def test_dropout_follows_f7() -> None:
    neck = NECKS["deepface"](32)
    pooled = torch.randn(4, 32)
    assert [type(part).__name__ for part in neck] == ["Linear", "ReLU", "Dropout"] and neck.dropout.p == 0.5
    assert not torch.equal(neck(pooled), neck(pooled))
    assert torch.equal(neck.eval()(pooled), neck.f7(pooled).relu())


def test_a_wrong_size_is_one_clear_line() -> None:
    with torch.device("meta"):
        trunk = BACKBONES["deepface"]()
        with pytest.raises(InputError, match=r"152 x 152, not 128 x 64; set INPUT\.SIZE \[152, 152\]"):
            trunk(torch.zeros(1, 3, 128, 64))


def test_weights_in_our_names_come_back(caplog: pytest.LogCaptureFixture) -> None:
    trunk, neck = BACKBONES["deepface"](), NECKS["deepface"](20)
    weights = {**trunk.state_dict(), **neck.state_dict(), "f8.weight": torch.zeros(3, 4096)}
    again = BACKBONES["deepface"](weights=weights)
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    assert torch.equal(NECKS["deepface"](20, weights=weights).f7.weight, neck.f7.weight)
    with caplog.at_level(logging.WARNING):
        NECKS["deepface"](8, weights=weights)
    assert "the pooled width is 8" in caplog.text and "f7 is new" in caplog.text
    with pytest.raises(InputError, match=r"x\.pth: not the weights of deepface.*1 missing \(c1\.weight\)"):
        BACKBONES["deepface"](weights={n: v for n, v in weights.items() if n != "c1.weight"}, source="x.pth")
