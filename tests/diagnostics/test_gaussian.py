"""Formulas for Gaussian matrices, compared with simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reid.diagnostics.gaussian import expected_norms, expected_spectrum, expected_values, simulate
from reid.diagnostics.weights import measure_correlation


def drawn(d_in: int, k: int, groups: int, draws: int) -> dict[str, np.ndarray]:
    """Each number of so many Gaussian weights, computed here."""
    random = np.random.default_rng(1)
    values_of: dict[str, list[float]] = {}
    for _ in range(draws):
        blocks = random.normal(size=(groups, d_in, k))
        grams = blocks.transpose(0, 2, 1) @ blocks
        lengths = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
        cosine = np.abs(grams / lengths[:, :, None] / lengths[:, None, :])[:, ~np.eye(k, dtype=bool)]
        values = np.sort(np.linalg.svd(blocks, compute_uv=False).ravel())[::-1]
        share = values**2 / (values**2).sum()
        for name, value in {
            "correlation": (lengths**2).sum() / np.abs(grams).sum(),
            "severest_pair": values[-1] ** 2 / (lengths**2).min() if d_in > k else 0.0,
            "condition_number": values[0] / values[-1],
            "effective_rank": math.exp(-(share * np.log(share)).sum()),
            "stable_rank": 1 / share[0],
            "largest_cosine": cosine.max(),
            "mean_cosine": cosine.mean(),
            "norm_ratio": lengths.max() / lengths.min(),
        }.items():
            values_of.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in values_of.items()}


@pytest.mark.parametrize(
    ("d_in", "k", "groups"),
    [(300, 100, 1), (100, 300, 1), (400, 40, 1), (64, 16, 8)],
    ids=["tall", "wide", "thin", "grouped"],
)
def test_formulas_agree_with_draws(d_in: int, k: int, groups: int) -> None:
    formula, found = expected_values(d_in, k, groups), drawn(d_in, k, groups, 12)
    tolerance = {"correlation": 0.02, "mean_cosine": 0.02, "effective_rank": 0.02, "norm_ratio": 0.06}
    for name, values in found.items():
        value = formula[name]
        assert value is not None
        # The edges of Marchenko and Pastur are limits; grouped layers take the extremes of many small matrices.
        assert value == pytest.approx(np.median(values), rel=tolerance.get(name, 0.2), abs=1e-9), name


def test_square_matrices_follow_edelman() -> None:
    found = drawn(40, 40, 1, 300)["condition_number"]
    assert math.log(expected_values(40, 40)["condition_number"] or 0) == pytest.approx(np.log(found).mean(), abs=0.25)
    assert expected_values(40, 40, 4)["condition_number"] is None


@pytest.mark.parametrize(("d_in", "k"), [(200, 80), (80, 200), (120, 120), (7, 1), (1, 9)])
def test_expected_spectrum(d_in: int, k: int) -> None:
    random = np.random.default_rng(0)
    values = np.linalg.svd(random.normal(size=(20, d_in, k)), compute_uv=False).mean(axis=0)
    expected = np.array(expected_spectrum(d_in, k, 1, float((values**2).sum())))
    assert expected.shape == values.shape
    assert (expected**2).sum() == pytest.approx((values**2).sum())
    np.testing.assert_allclose(expected, values, atol=0.03 * values[0])


def test_expected_norms() -> None:
    random = np.random.default_rng(0)
    values = np.sort(np.linalg.norm(random.normal(size=(200, 50, 30)), axis=2), axis=1)[:, ::-1].mean(axis=0)
    np.testing.assert_allclose(expected_norms(30, 50, float((values**2).sum())), values, rtol=0.02)


def test_simulation_says_mean_and_range() -> None:
    simulated = simulate(30, 10, 2, measure=measure_correlation, seed=0)
    assert simulated.pop("draws") == 20
    assert simulated.keys() == expected_values(30, 10, 2).keys()
    for name, entry in simulated.items():
        assert entry["min"] < entry["mean"] < entry["max"], name
    assert simulated["correlation"]["mean"] == pytest.approx(expected_values(30, 10)["correlation"], rel=0.03)
    assert (
        simulate(4096, 2048, measure=lambda matrices: dict.fromkeys(expected_values(2, 2), 1.0), seed=0)["draws"] == 1
    )


def test_a_number_that_some_draw_lacks_is_left_out() -> None:
    def lacking(matrices: torch.Tensor) -> dict[str, float | None]:
        return {**dict.fromkeys(expected_values(2, 2), 1.0), "condition_number": None}

    assert "condition_number" not in simulate(5, 5, measure=lacking, seed=0)
