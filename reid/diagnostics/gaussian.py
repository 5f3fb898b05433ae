"""Reference values for weights: those of Gaussian matrices of the same shape.

A reference consists of `groups` blocks of shape (D, K) with independent N(0, 1) entries. All numbers here depend on D
and K but not on a scale. Sources: Marchenko and Pastur 1967 for the eigenvalues of W^T W as D and K grow at a fixed
ratio; Edelman 1988, "Eigenvalues and condition numbers of random matrices", for the square case; Page 1993, "Average
entropy of a subsystem", for the entropy; the cosine of two such vectors follows from the uniform distribution on the
sphere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import beta, chi2
from torch import Tensor

from reid.decorrelation import gaussian_correlation
from reid.training.seeding import seed_from

# Entries times the shorter side, summed over all matrices: a second or two on one core.
_MAX_WORK = 1.0e9
_MAX_DRAWS = 20
_EDELMAN = 1.537


def expected_values(d_in: int, k: int, groups: int = 1) -> dict[str, float | None]:
    """Compute by formula what `weights.measure_correlation` gives for Gaussian matrices.

    Args:
        d_in: D, entries of a weight vector.
        k: K, weight vectors per group, at least 2.
        groups: Number of groups.

    Returns:
        Values by name, None if no formula is known:

        - correlation: 1 / (1 + (K - 1) sqrt(2 / (pi D))).
        - severest_pair: the lower Marchenko-Pastur edge (sqrt(D) - sqrt(K))^2 over the median of the shortest squared
          norm, chi-squared with D degrees of freedom; 0 for K >= D.
        - condition_number: (sqrt(D) + sqrt(K)) / |sqrt(D) - sqrt(K)|, for a square matrix exp(log(D) + 1.537).
        - effective_rank: groups q exp(-q / 2 p) with q, p the shorter and the longer side.
        - stable_rank: groups D K / (sqrt(D) + sqrt(K))^2.
        - largest_cosine: the median of the largest |cos|, as if pairs were independent.
        - mean_cosine: E |cos|, exact.
        - norm_ratio: the ratio of the medians of the largest and the smallest norm.
    """
    short, long = sorted((d_in, k))
    low, high = abs(math.sqrt(d_in) - math.sqrt(k)), math.sqrt(d_in) + math.sqrt(k)
    vectors, pairs = groups * k, groups * k * (k - 1) / 2
    # The median of the largest of n values is the quantile 2^(-1/n).
    tail = -math.expm1(-math.log(2) / vectors)
    shortest, longest = float(chi2.ppf(tail, d_in)), float(chi2.isf(tail, d_in))
    condition: float | None = high / low if low > 0 else None
    if low == 0 and groups == 1:
        condition = math.exp(math.log(d_in) + _EDELMAN)
    largest = 1.0
    if d_in > 1:
        largest = math.sqrt(float(beta.isf(-math.expm1(-math.log(2) / pairs), 0.5, (d_in - 1) / 2)))
    return {
        "correlation": gaussian_correlation(d_in, k),
        "severest_pair": min(1.0, low**2 / shortest) if d_in > k else 0.0,
        "condition_number": condition,
        "effective_rank": groups * short * math.exp(-short / (2 * long)),
        "stable_rank": groups * d_in * k / high**2,
        "largest_cosine": largest,
        "mean_cosine": math.exp(gammaln(d_in / 2) - gammaln((d_in + 1) / 2)) / math.sqrt(math.pi),
        "norm_ratio": math.sqrt(longest / shortest),
    }


def simulate(
    d_in: int, k: int, groups: int = 1, *, measure: Callable[[Tensor], dict[str, Any]], seed: int
) -> dict[str, Any]:
    """Measure randomly generated Gaussian matrices, as many as take a second or two, between 1 and 20.

    Args:
        d_in: D, entries of a weight vector.
        k: K, weight vectors per group.
        groups: Number of groups.
        measure: Function of matrices (groups, D, K) float64 that returns numbers by name.
        seed: Seed of the generator; the same seed and shape give the same result.

    Returns:
        "draws", the number of matrices, and for each number {"mean", "min", "max"}; a number that is None for any
        matrix is omitted.
    """
    draws = int(min(_MAX_DRAWS, max(1, _MAX_WORK // (groups * d_in * k * min(d_in, k)))))
    generator = torch.Generator().manual_seed(seed_from(seed, "Gaussian weights", groups, d_in, k))
    shape = (groups, d_in, k)
    measured = [measure(torch.randn(shape, generator=generator, dtype=torch.float64)) for _ in range(draws)]
    result: dict[str, Any] = {"draws": draws}
    for name in expected_values(d_in, k, groups):
        values = [entry[name] for entry in measured]
        if None not in values:
            result[name] = {"mean": sum(values) / draws, "min": min(values), "max": max(values)}
    return result


def expected_spectrum(d_in: int, k: int, groups: int, energy: float) -> list[float]:
    """Compute the expected singular values: quantiles of the Marchenko-Pastur distribution.

    Args:
        d_in: D, entries of a weight vector.
        k: K, weight vectors per group; for 1 all values are equal, up to the small spread of the norms.
        groups: Number of groups.
        energy: Sum of squares of the result, which sets the scale.

    Returns:
        groups * min(D, K) values, descending.
    """
    count = groups * min(d_in, k)
    if min(d_in, k) == 1:
        return [math.sqrt(energy / count)] * count
    chosen = marchenko_pastur_quantiles(d_in, k, (np.arange(count) + 0.5) / count)
    return np.sqrt(chosen * (energy / chosen.sum())).tolist()


def marchenko_pastur_quantiles(d_in: int, k: int, below: np.ndarray) -> np.ndarray:
    """Compute quantiles of the Marchenko-Pastur density of the eigenvalues of a D x K matrix of variance 1.

    Args:
        d_in: D, at least 2.
        k: K, at least 2.
        below: Share of the min(D, K) nonzero eigenvalues of W^T W below each quantile, in [0, 1].

    Returns:
        Eigenvalues between (sqrt(D) - sqrt(K))^2 and (sqrt(D) + sqrt(K))^2, of the shape of `below`.
    """
    low, high = (math.sqrt(d_in) - math.sqrt(k)) ** 2, (math.sqrt(d_in) + math.sqrt(k)) ** 2
    # With eigenvalues (low + high) / 2 + (high - low) / 2 cos t, the density in t has no singular edges.
    cosine = np.cos(np.linspace(0.0, np.pi, 20_001))
    eigenvalues = (high + low) / 2 + (high - low) / 2 * cosine
    # sin^2 / eigenvalue, simplified for a square matrix, whose lower edge is 0.
    density = (1 - cosine) * 2 / high if low == 0.0 else (1 - cosine**2) / eigenvalues
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(below, cumulative / cumulative[-1], eigenvalues)


def expected_norms(d_in: int, vectors: int, energy: float) -> list[float]:
    """Compute the expected norms: quantiles of the chi distribution at (i + 1/2) / vectors.

    Args:
        d_in: D, entries of a vector and degrees of freedom.
        vectors: Number of vectors.
        energy: Sum of squares of the result, which sets the scale.

    Returns:
        The norms, descending.
    """
    squares = chi2.isf((np.arange(vectors) + 0.5) / vectors, d_in)
    return np.sqrt(squares * (energy / squares.sum())).tolist()
