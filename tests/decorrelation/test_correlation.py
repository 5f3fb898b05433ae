"""The measures of correlation: values computed by hand, limits, and invalid matrices."""

from __future__ import annotations

import math
from typing import Any

import mpmath_measures
import numpy as np
import pytest
import torch

from reid.decorrelation import (
    condition_number,
    correlation_metric,
    gaussian_correlation,
    severest_pair,
    smallest_singular_value,
    spectrum,
    vector_lengths,
)
from reid.errors import InputError

MEASURES = (correlation_metric, severest_pair, condition_number)


def gaussian(d_in: int, k: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(d_in, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def orthogonal(d_in: int, norms: list[float], seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(gaussian(d_in, len(norms), seed))[0] * torch.tensor(norms, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 4), (4, 4), (3, 5), (7, 1)])
def test_s_of_w_equals_a_double_loop(shape: tuple[int, int]) -> None:
    weight = gaussian(*shape).numpy()
    own, all_pairs = 0.0, 0.0
    for i in range(shape[1]):
        own += sum(x * x for x in weight[:, i])
        for j in range(shape[1]):
            all_pairs += abs(sum(x * y for x, y in zip(weight[:, i], weight[:, j], strict=True)))
    assert correlation_metric(torch.from_numpy(weight)) == pytest.approx(own / all_pairs, rel=1e-12)


def test_s_of_w_by_hand() -> None:
    # Columns (1, 0) and (1, 1): G = [[1, 1], [1, 2]], S = 3 / 5; the eigenvalues of G are (3 +- sqrt 5) / 2.
    weight = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    low, high = (3 - math.sqrt(5)) / 2, (3 + math.sqrt(5)) / 2
    assert correlation_metric(weight) == pytest.approx(3 / 5, rel=1e-12)
    assert severest_pair(weight) == pytest.approx(low / 1, rel=1e-12)
    assert condition_number(weight) == pytest.approx(math.sqrt(high / low), rel=1e-12)
    assert spectrum(weight).tolist() == pytest.approx([math.sqrt(high), math.sqrt(low)], rel=1e-12)


def test_orthogonal_columns_of_any_length() -> None:
    weight = orthogonal(30, [5.0, 1.0, 0.2, 3.0])
    assert correlation_metric(weight) == pytest.approx(1, abs=1e-12) and correlation_metric(weight) <= 1
    assert severest_pair(weight) == pytest.approx(1, abs=1e-12)
    assert condition_number(weight) == pytest.approx(25, rel=1e-12)
    assert spectrum(weight).tolist() == pytest.approx([5, 3, 1, 0.2], rel=1e-12)


def test_coinciding_columns() -> None:
    column = gaussian(20, 1)
    assert correlation_metric(column.repeat(1, 8)) == pytest.approx(1 / 8, rel=1e-12)
    signs = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert correlation_metric(column * signs) == pytest.approx(1 / 8, rel=1e-12)
    assert severest_pair(column.repeat(1, 8)) == pytest.approx(0, abs=1e-12)
    assert condition_number(column.repeat(1, 8)) > 1e12


def test_severest_pair_and_condition_number_equal_the_gram_matrix() -> None:
    weight = gaussian(40, 12, seed=3)
    gram = weight.numpy().T @ weight.numpy()
    assert severest_pair(weight) == pytest.approx(np.linalg.eigvalsh(gram)[0] / np.diag(gram).min(), rel=1e-9)
    assert condition_number(weight) == pytest.approx(math.sqrt(np.linalg.cond(gram)), rel=1e-9)


@pytest.mark.parametrize("family", ["independent", "correlated", "orthogonal", "twins"])
@pytest.mark.parametrize("shape", [(6, 4), (12, 8)])
def test_columns_of_any_length_are_measured_to_all_digits(shape: tuple[int, int], family: str) -> None:
    """An SVD of W itself finds nothing below the rounding error of its largest value."""
    for shortest in (1.0, 1e-8, 1e-20, 1e-45):
        weight = mpmath_measures.families(*shape)[family] * mpmath_measures.lengths(shape[1], shortest)
        truth = mpmath_measures.measures([weight])
        for measure, name in zip(MEASURES, ("correlation", "severest_pair", "condition_number"), strict=True):
            assert measure(weight) == pytest.approx(truth[name], rel=1e-8), (shortest, name)


@pytest.mark.parametrize(("dtype", "shortest"), [(torch.half, 1e-6), (torch.bfloat16, 1e-38), (torch.float, 1e-43)])
def test_columns_of_subnormal_numbers(dtype: torch.dtype, shortest: float) -> None:
    weight = (mpmath_measures.families(12, 8)["correlated"] * mpmath_measures.lengths(8, shortest)).to(dtype)
    assert 0 < float(vector_lengths(weight).min()) < 10 * torch.finfo(dtype).tiny
    truth = mpmath_measures.measures([weight])
    assert severest_pair(weight) == pytest.approx(truth["severest_pair"], rel=1e-12)
    assert condition_number(weight) == pytest.approx(truth["condition_number"], rel=1e-12)


def test_coinciding_columns_beside_a_short_one() -> None:
    """Rounding of the long twins exceeds the short column, which must not pass for the smallest eigenvalue."""
    column = gaussian(9, 1)
    weight = torch.cat([column, column, gaussian(9, 1, seed=1) * 1e-45], dim=1)
    assert severest_pair(weight) == smallest_singular_value(weight) == 0 and condition_number(weight) == math.inf


def test_lengths_beyond_the_range_of_squares() -> None:
    weight = orthogonal(7, [3.0, 4.0]) * torch.tensor([1e300, 1e-310], dtype=torch.float64)
    assert vector_lengths(weight).tolist() == pytest.approx([3e300, 4e-310], rel=1e-12)
    assert severest_pair(weight) == pytest.approx(1, rel=1e-12)
    assert vector_lengths(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_more_columns_than_dimensions() -> None:
    weight = gaussian(3, 5)
    assert severest_pair(weight) == 0 and len(spectrum(weight)) == 3
    assert smallest_singular_value(weight) == float(spectrum(weight)[-1])
    assert smallest_singular_value(weight[[0, 0, 1]]) == 0 and condition_number(weight[[0, 0, 1]]) == math.inf
    assert 1 / 5 <= correlation_metric(weight) < 1


def test_a_zero_column_is_no_division_by_zero() -> None:
    weight = gaussian(6, 3)
    weight[:, 1] = 0
    assert severest_pair(weight) == 0 and condition_number(weight) > 1e12
    assert correlation_metric(weight) == pytest.approx(correlation_metric(weight[:, [0, 2]]), rel=1e-12)
    assert condition_number(torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == math.inf


@pytest.mark.parametrize("scale", [1e-180, 1e-3, 1e180])
def test_the_scale_changes_nothing(scale: float) -> None:
    weight = gaussian(10, 6)
    for measure in MEASURES:
        assert measure(weight * scale) == pytest.approx(measure(weight), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_weights_are_measured_in_float64(dtype: torch.dtype) -> None:
    weight = gaussian(30, 10, dtype=dtype)
    for measure in MEASURES:
        assert measure(weight) == measure(weight.double())
    assert spectrum(torch.nn.Parameter(weight)).dtype == torch.float64


@pytest.mark.parametrize(("d_in", "k"), [(512, 256), (300, 300)])
def test_the_gaussian_formula_against_a_simulation(d_in: int, k: int) -> None:
    samples = [correlation_metric(gaussian(d_in, k, seed)) for seed in range(3)]
    assert gaussian_correlation(d_in, k) == pytest.approx(sum(samples) / 3, rel=0.01)


def test_the_gaussian_formula_at_the_size_of_the_paper() -> None:
    assert gaussian_correlation(2048, 1024) == pytest.approx(0.0525, abs=5e-5)
    assert gaussian_correlation(100, 1) == 1


def test_bad_matrices_are_told() -> None:
    for measure in MEASURES:
        with pytest.raises(InputError, match="2 x 3 weight matrix are zero"):
            measure(torch.zeros(2, 3))
    broken = torch.ones(2, 3)
    broken[0, 1], broken[1, 1] = math.nan, math.inf
    for function in (*MEASURES, spectrum):
        with pytest.raises(InputError, match="2 of 6 entries of the 2 x 3 weight matrix are NaN or infinite"):
            function(broken)
        for wrong in (torch.ones(3), torch.ones(0, 3), torch.ones(2, 2, dtype=torch.int64)):
            with pytest.raises(InputError, match="floating"):
                function(wrong)
    with pytest.raises(InputError, match="0 x 4"):
        gaussian_correlation(0, 4)


@pytest.mark.parametrize("measure", [*MEASURES, spectrum])
@pytest.mark.parametrize("weight", [np.eye(3), [[1.0]], None])
def test_only_tensors_are_measured(measure: Any, weight: Any) -> None:
    with pytest.raises(InputError, match=r"must be a \(D_in, K\) tensor or an nn.Linear, not a"):
        measure(weight)


def test_a_linear_layer_is_measured_by_its_vectors() -> None:
    layer = torch.nn.Linear(6, 4)
    for measure in MEASURES:
        assert measure(layer) == measure(layer.weight.T)
    assert correlation_metric(layer) != correlation_metric(layer.weight)
