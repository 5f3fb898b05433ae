"""The Eigenlayer: its formula, K and its refusal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.model.eigenlayer import Eigenlayer, vector_count


def test_output_is_w_transposed_h() -> None:
    layer = Eigenlayer(6, 4)
    h = torch.randn(3, 6)
    w = layer.vectors.detach().numpy()
    assert w.shape == (6, 4) and layer.bias is None
    np.testing.assert_allclose(layer(h).detach().numpy(), np.stack([w.T @ row for row in h.numpy()]), atol=1e-6)


def test_bias_and_relu_are_ablations() -> None:
    layer = Eigenlayer(6, 4, bias=True, relu=True, init_std=1.0)
    assert torch.equal(layer.bias, torch.zeros(4))
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([9.0, -9.0, 0.0, 0.5]))
        h = torch.rand(3, 6)
        expected = (h @ layer.vectors + layer.bias).clamp(min=0)
        assert torch.allclose(layer(h), expected, atol=1e-6)
    assert (expected == 0).any() and (expected > 0).any()


@pytest.mark.parametrize("std", [0.01, 0.3])
def test_weights_start_from_the_given_deviation(std: float) -> None:
    torch.manual_seed(0)
    weight = Eigenlayer(512, 256, init_std=std).weight
    assert weight.std().item() == pytest.approx(std, rel=0.02) and abs(weight.mean().item()) < 0.01 * std


@pytest.mark.parametrize(("d_in", "k", "expected"), [(2048, 0, 1024), (512, 0, 512), (512, 512, 512), (512, 64, 64)])
def test_k(d_in: int, k: int, expected: int) -> None:
    assert vector_count(d_in, k) == expected


def test_more_vectors_than_dimensions_are_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"K = 513 .*D_in = 512.*cannot be orthogonal.*non-zero columns"):
        Eigenlayer(512, 513)
    with pytest.raises(InputError, match=r"K, or 0 for the default, .* not -1"):
        Eigenlayer(512, -1)


def test_vectors_share_the_weight() -> None:
    layer = Eigenlayer(3, 2)
    with torch.no_grad():
        layer.vectors[0, 1] = 7.0
    assert layer.weight[1, 0] == 7.0
