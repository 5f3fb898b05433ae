"""GeM and its weighted forms against loops in float64, their limits, and the published derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid.model.pooling.gem import GeM
from reid.model.pooling.weighted_gem import RegionalWeightedGeM, WeightedGeM, WeightedSum

SHAPE = (2, 3, 4, 2)


def maps() -> Tensor:
    """Non-negative as after a ReLU, some of it zero."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).relu()


def positive() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.05


def weighted(kind: Any = WeightedGeM, **options: Any) -> Any:
    torch.manual_seed(2)
    pooling = kind(3, **options)
    nn.init.normal_(pooling.omega.weight, std=0.4)
    return pooling.double()


def convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with zero padding, by its sum: (C, h, w) and (C, 3, 3) -> (h, w)."""
    channels, height, width = x.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                for u in range(3):
                    for v in range(3):
                        if 0 <= i + u - 1 < height and 0 <= j + v - 1 < width:
                            out[i, j] += kernel[c, u, v] * x[c, i + u - 1, j + v - 1]
    return out


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def mean_by_hand(x: np.ndarray, weights: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(sum of w x^p)^(1/p) position by position: (C, h, w), (h, w), (C,) -> (C,)."""
    out = np.zeros(len(x))
    for c in range(len(x)):
        total = 0.0
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                total += weights[i, j] * max(x[c, i, j], 1e-6) ** p[c]
        out[c] = total ** (1 / p[c])
    return out


@pytest.mark.parametrize("per_channel", [False, True])
def test_gem_by_loops(per_channel: bool) -> None:
    pooling = GeM(3, p=2.5, p_per_channel=per_channel).double()
    p = np.full(3, 2.5)
    if per_channel:
        p = np.array([1.0, 2.5, 7.0])
        pooling.p.data.copy_(torch.from_numpy(p))
    uniform = np.full((4, 2), 1 / 8)
    expected = [mean_by_hand(x, uniform, p) for x in maps().numpy()]
    np.testing.assert_allclose(pooling(maps()).detach(), expected, rtol=1e-12)
    assert pooling.p.shape == ((3,) if per_channel else (1,))


@pytest.mark.parametrize("per_channel", [False, True])
def test_weighted_gem_by_loops(per_channel: bool) -> None:
    pooling = weighted(p=2.5, p_per_channel=per_channel)
    p = np.full(3, 2.5)
    if per_channel:
        p = np.array([1.0, 2.5, 7.0])
        pooling.p.data.copy_(torch.from_numpy(p))
    kernel = pooling.omega.weight.detach().numpy()[0]
    weights = [softmax(convolved(x, kernel)) for x in maps().numpy()]
    np.testing.assert_allclose(pooling.attention(maps()).detach(), weights, rtol=1e-12)
    expected = [mean_by_hand(x, w, p) for x, w in zip(maps().numpy(), weights, strict=True)]
    np.testing.assert_allclose(pooling(maps()).detach(), expected, rtol=1e-12)


def test_weighted_sum_by_loops() -> None:
    pooling = weighted(WeightedSum)
    kernel = pooling.omega.weight.detach().numpy()[0]
    expected = [(softmax(convolved(x, kernel)) * x).sum((1, 2)) for x in maps().numpy()]
    np.testing.assert_allclose(pooling(maps()).detach(), expected, rtol=1e-12)


def test_regional_weighted_gem_by_loops() -> None:
    pooling = weighted(RegionalWeightedGeM, regions=3, p=2.0)
    kernels = pooling.omega.weight.detach().numpy()
    for x, pooled in zip(maps().numpy(), pooling(maps()).detach().numpy(), strict=True):
        total = np.zeros(3)
        for kernel in kernels:
            vector = mean_by_hand(x, softmax(convolved(x, kernel)), np.full(3, 2.0))
            total += vector / math.sqrt((vector**2).sum())
        np.testing.assert_allclose(pooled, total, rtol=1e-12)


def test_gem_goes_from_average_to_maximum() -> None:
    clamped = maps().clamp(min=1e-6)
    torch.testing.assert_close(GeM(3, p=1.0).double()(maps()), clamped.mean((2, 3)), rtol=1e-12, atol=0)
    near = GeM(3, p=1 + 1e-9).double()(maps())
    torch.testing.assert_close(near, clamped.mean((2, 3)), rtol=1e-7, atol=0)
    errors = [(GeM(3, p=p)(maps().float()) - maps().amax((2, 3))).abs().max().item() for p in (10.0, 100.0, 1e6)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4


def test_large_values_and_exponents_do_not_overflow() -> None:
    pooled = GeM(3, p=200.0)(1e4 * positive().float())
    assert pooled.isfinite().all() and (pooled <= 1e4 * positive().amax((2, 3)) * 1.001).all()


def test_uniform_weights_give_gem_and_p_1_the_weighted_sum() -> None:
    fresh = WeightedGeM(3, p=2.5).double()  # its scores start at zero
    torch.testing.assert_close(fresh(maps()), GeM(3, p=2.5).double()(maps()), rtol=1e-12, atol=0)
    first, total = weighted(p=1.0), weighted(WeightedSum)
    torch.testing.assert_close(first(positive()), total(positive()), rtol=1e-12, atol=0)


def test_one_region_is_weighted_gem_of_unit_length() -> None:
    regional, single = weighted(RegionalWeightedGeM, regions=1), weighted(l2=True)
    torch.testing.assert_close(regional(maps()), single(maps()), rtol=1e-12, atol=0)


def test_regions_start_apart_and_weighted_gem_starts_uniform() -> None:
    torch.manual_seed(0)
    attention = RegionalWeightedGeM(3, regions=2).attention(maps().float())
    assert not torch.allclose(attention[:, 0], attention[:, 1])
    torch.testing.assert_close(WeightedGeM(3).attention(maps().float()), torch.full((2, 4, 2), 1 / 8))


def test_a_fixed_exponent_is_no_parameter_but_is_kept() -> None:
    pooling = GeM(3, p=4.0, p_learnable=False)
    assert not list(pooling.parameters()) and pooling.state_dict()["p"] == 4.0
    assert isinstance(GeM(3).p, nn.Parameter)


def test_published_derivatives_of_gem() -> None:
    """df/dx = (1/N) f^(1-p) x^(p-1); df/dp = (f/p^2) [ln(N / sum x^p) + p sum(x^p ln x) / sum x^p]."""
    pooling = GeM(1, p=2.75).double()
    x = positive()[:1, :1].requires_grad_()
    f = pooling(x)
    f.backward()
    value, p, positions = x.detach().numpy().ravel(), 2.75, 8
    total = float((value**p).sum())
    mean = (total / positions) ** (1 / p)
    np.testing.assert_allclose(x.grad.numpy().ravel(), mean ** (1 - p) * value ** (p - 1) / positions, rtol=1e-10)
    slope = mean / p**2 * (math.log(positions / total) + p * float((value**p * np.log(value)).sum()) / total)
    assert pooling.p.grad is not None
    assert pooling.p.grad.item() == pytest.approx(slope, rel=1e-10)


def test_published_derivatives_of_weighted_gem() -> None:
    """Of one output y_k: to the weights, to p, and to x, through the weights and across all channels."""
    pooling = weighted(p=2.5)
    p, kernel = 2.5, pooling.omega.weight.detach().numpy()[0]
    x = positive()[:1].requires_grad_()
    channel = 1
    pooling(x)[0, channel].backward()
    values = x.detach().numpy()[0]
    channels, height, width = values.shape
    weights = softmax(convolved(values, kernel))
    own = values[channel]
    y = float((weights * own**p).sum()) ** (1 / p)
    by_weight = own / p * (own / y) ** (p - 1)
    by_p = y / p * (float((weights * own**p * np.log(own)).sum()) / y**p - math.log(y))
    assert pooling.p.grad.item() == pytest.approx(by_p, rel=1e-10)
    mean = float((by_weight * weights).sum())
    by_score = weights * (by_weight - mean)  # the softmax: dw_j / ds_i = w_j (delta_ij - w_i)
    expected = np.zeros_like(values)
    expected[channel] = weights * (own / y) ** (p - 1)
    by_kernel = np.zeros_like(kernel)
    for i in range(height):
        for j in range(width):
            for u in range(3):
                for v in range(3):
                    a, b = i + u - 1, j + v - 1
                    if 0 <= a < height and 0 <= b < width:
                        expected[:, a, b] += by_score[i, j] * kernel[:, u, v]
                        by_kernel[:, u, v] += by_score[i, j] * values[:, a, b]
    np.testing.assert_allclose(x.grad.numpy()[0], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pooling.omega.weight.grad.numpy()[0], by_kernel, rtol=1e-9, atol=1e-12)
    assert channels > 1 and np.abs(x.grad.numpy()[0, 0]).max() > 0  # another channel has its part


def test_the_gradient_to_the_weights_vanishes_as_p_grows() -> None:
    sizes = []
    for p in (2.0, 50.0, 1000.0):
        pooling = weighted(p=p)
        pooling(positive()).sum().backward()
        sizes.append(pooling.omega.weight.grad.abs().max().item())
    assert sizes[0] > sizes[1] > sizes[2] and sizes[2] < 0.01 * sizes[0]
