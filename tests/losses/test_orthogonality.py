"""The penalties against singular values in float64, and their gradients against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reid.losses.orthogonality import PENALTIES, dso, so, srip, svmo

SHAPES = [(12, 5), (8, 8), (30, 4)]


def sample(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Singular values well apart, as a power iteration of few steps wants them."""
    generator = torch.Generator().manual_seed(seed)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.linspace(2.0, 2.2, len(vt), dtype=torch.float64)
    values[-1] = 3.0
    values[0] = 0.01
    return (u * values) @ vt


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_follow_from_the_singular_values(shape: tuple[int, int]) -> None:
    w = sample(shape)
    squares = torch.linalg.svdvals(w).square()
    soft = (squares - 1).square().sum().item()
    missing = shape[0] - shape[1]  # WWᵀ has so many eigenvalues 0, each 1 away from I
    assert so(w).item() == pytest.approx(soft, rel=1e-5)
    assert dso(w).item() == pytest.approx(2 * soft + missing, rel=1e-5)
    assert srip(w).item() == pytest.approx((squares - 1).abs().max().item(), rel=1e-3)
    assert svmo(w).item() == pytest.approx((squares.max() - squares.min()).square().item(), rel=2e-2)


def test_srip_takes_the_largest_on_both_sides() -> None:
    """WᵀW - I has ten eigenvalues 0.9 and ten -0.9, where descent shall bring both nearer to 0."""
    q = torch.linalg.qr(torch.randn(40, 20, generator=torch.Generator().manual_seed(0))).Q
    w = (q * torch.tensor([1.9, 0.1]).sqrt().repeat(10)).requires_grad_()
    value = srip(w)
    assert value.item() == pytest.approx(0.9, rel=1e-4)
    value.backward()
    squares = torch.linalg.svdvals(w.detach() - 0.05 * w.grad).square()
    assert squares.max().item() == pytest.approx(1.9, abs=1e-3)  # one direction at a time, and not outwards
    assert squares.min().item() == pytest.approx(0.1, abs=1e-3)
    assert (squares - 1).square().sum() < 20 * 0.9**2


@pytest.mark.parametrize("name", PENALTIES)
def test_orthonormal_vectors_cost_the_least(name: str) -> None:
    q = torch.linalg.qr(torch.randn(12, 5, generator=torch.Generator().manual_seed(1))).Q
    least = 7.0 if name == "dso" else 0.0
    assert PENALTIES[name](q).item() == pytest.approx(least, abs=1e-4)
    assert PENALTIES[name](q + 0.1 * torch.ones(12, 5)).item() > least + 1e-3


def test_svmo_alone_lets_the_lengths_be() -> None:
    q = torch.linalg.qr(torch.randn(12, 5, generator=torch.Generator().manual_seed(1))).Q
    assert svmo(3 * q).item() == pytest.approx(0.0, abs=1e-3)
    assert srip(3 * q).item() == pytest.approx(8.0, rel=1e-4)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_the_exact_values(name: str, shape: tuple[int, int]) -> None:
    """By differences of the formulas on singular values, in a random direction."""

    def exact(w: Tensor) -> float:
        squares = torch.linalg.svdvals(w).square()
        soft = (squares - 1).square().sum().item()
        return {
            "so": soft,
            "dso": 2 * soft,
            "srip": (squares - 1).abs().max().item(),
            "svmo": (squares.max() - squares.min()).square().item(),
        }[name]

    w = sample(shape, seed=2)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    step = 1e-5
    expected = (exact(w + step * direction) - exact(w - step * direction)) / (2 * step)
    leaf = w.float().requires_grad_()
    PENALTIES[name](leaf).backward()
    found = (leaf.grad.double() * direction).sum().item()
    assert found == pytest.approx(expected, rel=3e-2)


@pytest.mark.parametrize("name", PENALTIES)
def test_descent_lowers_the_penalty(name: str) -> None:
    w = torch.randn(20, 6, generator=torch.Generator().manual_seed(3)).mul(0.3).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.01)
    before = PENALTIES[name](w).item()
    for _ in range(200):
        optimizer.zero_grad()
        PENALTIES[name](w).backward()
        optimizer.step()
    least = 14.0 if name == "dso" else 0.0
    assert PENALTIES[name](w).item() - least < 0.2 * (before - least)
