"""Feature statistics, compared with NumPy, loops and hand-computed cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reid.decorrelation import correlation_metric
from reid.diagnostics import feature_statistics
from reid.diagnostics.feature_statistics import covariance, describe_features, doubling
from reid.errors import InputError


def embedding(rows: int = 60, columns: int = 7, seed: int = 0) -> np.ndarray:
    """Correlated columns of very different lengths, far from the origin."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))
    return (mixed * np.geomspace(1, 30, columns) + 100).astype(np.float32)


def test_covariance_in_blocks_is_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_statistics, "_BLOCK_ROWS", 7)
    values = embedding()
    np.testing.assert_allclose(covariance(values), np.cov(values.astype(np.float64), rowvar=False), rtol=1e-12)


def test_every_number_from_the_data_alone() -> None:
    values = embedding().astype(np.float64)
    c = np.cov(values, rowvar=False)
    found = describe_features(values)
    assert (found["images"], found["dimensions"], found["dead"]) == (60, 7, 0)
    assert found["total_variance"] == pytest.approx(sum(values.var(axis=0, ddof=1)))
    centered = values - values.mean(axis=0)
    squares = np.linalg.svd(centered, compute_uv=False) ** 2 / 59
    np.testing.assert_allclose(found["spectrum"], squares, rtol=1e-9)
    diagonal, everything = 0.0, 0.0
    for i in range(7):
        diagonal += c[i, i]
        for j in range(7):
            everything += abs(c[i, j])
    assert found["correlation"] == pytest.approx(diagonal / everything, rel=1e-12)
    # The covariance is the Gram matrix of the centered features.
    assert found["correlation"] == pytest.approx(correlation_metric(torch.from_numpy(centered)), rel=1e-12)
    r = np.corrcoef(values, rowvar=False)
    pairs = [abs(r[i, j]) for i in range(7) for j in range(i + 1, 7)]
    assert found["mean_absolute_correlation"] == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
    shares = squares / squares.sum()
    assert found["effective_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)
    assert [entry["k"] for entry in found["variance"]] == [1, 2, 4, 7]
    variances = values.var(axis=0)
    for entry in found["variance"]:
        assert entry["dimensions"] == pytest.approx(variances[: entry["k"]].sum() / variances.sum(), rel=1e-12)
        assert entry["components"] == pytest.approx(shares[: entry["k"]].sum(), rel=1e-9)
    assert found["variance"][-1]["components"] == pytest.approx(1.0)


def test_a_constant_dimension_is_dead_whatever_its_mean_rounds_to() -> None:
    values = embedding()
    values[:, 2], values[:, 5] = np.float32(0.1), 0.0
    found = describe_features(values)
    assert found["dead"] == 2
    assert found["spectrum"][-2:] == pytest.approx([0.0, 0.0], abs=1e-9)
    alive = np.corrcoef(values[:, [0, 1, 3, 4, 6]].astype(np.float64), rowvar=False)
    expected = (np.abs(alive).sum() - 5) / 20
    assert found["mean_absolute_correlation"] == pytest.approx(expected, rel=1e-12)


def test_one_dimension_alive_has_nothing_to_correlate_with() -> None:
    values = np.zeros((10, 3))
    values[:, 1] = range(10)
    found = describe_features(values)
    assert (found["dead"], found["mean_absolute_correlation"]) == (2, None)
    assert (found["effective_rank"], found["correlation"]) == pytest.approx((1.0, 1.0))


def test_effective_rank_and_correlation_by_hand() -> None:
    # The corners of a rectangle: variances 3 : 1 and no correlation.
    corners = np.array([[math.sqrt(3), 1], [math.sqrt(3), -1], [-math.sqrt(3), 1], [-math.sqrt(3), -1]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    found = describe_features(corners)
    assert found["effective_rank"] == pytest.approx(math.exp(entropy))
    assert (found["correlation"], found["mean_absolute_correlation"]) == pytest.approx((1.0, 0.0))
    assert found["variance"][0] == pytest.approx({"k": 1, "dimensions": 0.75, "components": 0.75})
    # Twice the same column: C has four equal entries.
    twice = describe_features(corners[:, [0, 0]])
    assert (twice["correlation"], twice["mean_absolute_correlation"], twice["effective_rank"]) == pytest.approx(
        (0.5, 1.0, 1.0)
    )


def test_what_chance_gives() -> None:
    found = describe_features(np.random.default_rng(1).normal(size=(400, 60)))
    assert found["mean_absolute_correlation"] == pytest.approx(found["by_chance"], rel=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((1, 4)), "at least two feature rows"),
        (np.ones(4), "at least two feature rows"),
        (np.full((5, 3), 2.5), "all 5 feature rows are equal"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "NaN or infinity"),
    ],
)
def test_what_has_no_covariance(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_features(values)


def test_doubling() -> None:
    assert doubling(1, 1) == [1]
    assert doubling(8, 512) == [8, 16, 32, 64, 128, 256, 512]
    assert doubling(8, 20) == [8, 16, 20]


def test_dimensions_below_the_rounding_error_of_the_others_are_dead() -> None:
    values = np.random.default_rng(0).normal(size=(50, 7))
    # One that shrank to nothing, and one whose rows differ by rounding only.
    dying = np.column_stack([values[:, :4], values[:, 4:6] * 1e-45, 0.1 + np.where(values[:, 6] > 0, 1.4e-17, 0.0)])
    assert len(np.unique(dying[:, 6])) == 2
    found, truth = describe_features(dying), describe_features(values[:, :4])
    assert (found["dead"], truth["dead"]) == (3, 0)
    for key in ("correlation", "mean_absolute_correlation", "effective_rank", "total_variance"):
        assert found[key] == pytest.approx(truth[key], rel=1e-12), key


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_features_whose_squares_leave_float64_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match="squares are out of float64's range; scale"):
        describe_features(np.random.default_rng(0).normal(size=(5, 3)) * scale)
    smallest = np.eye(4, dtype=np.float32) * np.float32(1.4e-45)
    assert describe_features(smallest)["correlation"] == pytest.approx(0.5)
