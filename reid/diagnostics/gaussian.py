"""What the numbers of a weight are by chance alone: of a matrix of its shape with independent Gaussian entries.

`groups` blocks of shape (D, K), each with independent N(0, 1) entries; D and K, not their product, decide every number
here, and no scale does. Sources: Marchenko and Pastur 1967 for the eigenvalues of W^T W as D and K grow at a fixed
ratio; Edelman 1988, "Eigenvalues and condition numbers of random matrices", for the square case; Page 1993, "Average
entropy of a subsystem", for the entropy; the cosine of two such vectors follows from the uniform law on the sphere.
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

# Entries times the shorter side that all draws together may cost, a second or two on one core.
_WORK = 1.0e9
_DRAWS = 20
_EDELMAN = 1.537


def expected(d_in: int, k: int, groups: int = 1) -> dict[str, float | None]:
    """The numbers of `weights.measure` by formula; None where no formula is known to us. K is that of one group, >= 2.

    correlation: 1 / (1 + (K - 1) sqrt(2 / (pi D))). severest_pair: the lower Marchenko-Pastur edge (sqrt(D) -
    sqrt(K))^2 over the median of the shortest squared length, a chi-squared of D degrees; 0 for K >= D.
    condition_number: (sqrt(D) + sqrt(K)) / |sqrt(D) - sqrt(K)|, for a square matrix exp(log(D) + 1.537).
    effective_rank: groups q exp(-q / 2 p) with q, p the shorter and the longer side. stable_rank: groups D K /
    (sqrt(D) + sqrt(K))^2. largest_cosine: the median of the largest |cos|, as if pairs were independent. mean_cosine:
    E |cos|, exact. norm_ratio: the ratio of the medians of the longest and the shortest length.
    """
    short, long = sorted((d_in, k))
    low, high = abs(math.sqrt(d_in) - math.sqrt(k)), math.sqrt(d_in) + math.sqrt(k)
    vectors, pairs = groups * k, groups * k * (k - 1) / 2
    # The largest of n values lies as often as not below the quantile 2^(-1/n).
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


def simulated(
    d_in: int, k: int, groups: int = 1, *, measure: Callable[[Tensor], dict[str, Any]], seed: int
) -> dict[str, Any]:
    """`measure` of drawn blocks (groups, D, K) float64: draws, and for each number its mean, min and max.

    Up to 20 draws, as many as fit into a second or two, at least one; the same for the same seed and shape. A number is
    left out where a draw has none.
    """
    draws = int(min(_DRAWS, max(1, _WORK // (groups * d_in * k * min(d_in, k)))))
    generator = torch.Generator().manual_seed(seed_from(seed, "Gaussian weights", groups, d_in, k))
    shape = (groups, d_in, k)
    told = [measure(torch.randn(shape, generator=generator, dtype=torch.float64)) for _ in range(draws)]
    found: dict[str, Any] = {"draws": draws}
    for name in expected(d_in, k, groups):
        values = [entry[name] for entry in told]
        if None not in values:
            found[name] = {"mean": sum(values) / draws, "min": min(values), "max": max(values)}
    return found


def spectrum(d_in: int, k: int, groups: int, energy: float) -> list[float]:
    """The singular values to expect, descending: quantiles of the Marchenko-Pastur law for `groups` min(D, K) of them.

    energy: their sum of squares, which sets the scale. For K = 1 all are equal, up to the lengths' small spread.
    """
    count = groups * min(d_in, k)
    if min(d_in, k) == 1:
        return [math.sqrt(energy / count)] * count
    low, high = (math.sqrt(d_in) - math.sqrt(k)) ** 2, (math.sqrt(d_in) + math.sqrt(k)) ** 2
    # With eigenvalues (low + high) / 2 + (high - low) / 2 cos t the law has a density in t without singular edges.
    cosine = np.cos(np.linspace(0.0, np.pi, 20_001))
    eigenvalues = (high + low) / 2 + (high - low) / 2 * cosine
    # sin^2 / eigenvalue, which for a square matrix, whose lower edge is 0, comes down to this.
    density = (1 - cosine) * 2 / high if low == 0.0 else (1 - cosine**2) / eigenvalues
    reached = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    chosen = np.interp((np.arange(count) + 0.5) / count, reached / reached[-1], eigenvalues)
    return np.sqrt(chosen * (energy / chosen.sum())).tolist()


def norms(d_in: int, vectors: int, energy: float) -> list[float]:
    """The lengths to expect of `vectors` Gaussian vectors of D entries, descending, scaled to a sum of squares.

    Quantiles of the chi law of D degrees at (i + 1/2) / vectors.
    """
    squares = chi2.isf((np.arange(vectors) + 0.5) / vectors, d_in)
    return np.sqrt(squares * (energy / squares.sum())).tolist()
