"""Shape of a layer's spectrum: power-law tail, Marchenko-Pastur bulk and norms, beside those of the shuffled weight.

These are the quantities of the package WeightWatcher, under its names and by its definitions: Martin and Mahoney 2021,
"Implicit self-regularization in deep neural networks", JMLR 22(165); Martin, Peng and Mahoney 2021, "Predicting trends
in the quality of state-of-the-art neural networks without access to training or testing data", Nature Communications.
A convolution is not flattened to one matrix here but has one matrix (C_in / groups, K / groups) per kernel position and
group, and the eigenvalues of all of them are pooled. docs/diagnostics.md lists where the two differ, and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import rel_entr
from scipy.stats import gamma
from torch import Tensor

from reid.diagnostics import gram
from reid.diagnostics.gaussian import marchenko_pastur_quantiles
from reid.diagnostics.gram import living, norms
from reid.diagnostics.weights import Layer
from reid.training.seeding import seed_from

# Fewer eigenvalues leave an exponent's standard error above a fifth of alpha - 1.
MIN_EIGENVALUES = 20
# Share of layers without structure in which chance makes at least one spike.
_FALSE_SPIKES = 0.01
# Of each tail, where the fit of a power law is compared first.
_PLACES = 33
# Eigenvalues of matrices of several shapes, each ascending: groups with dead vectors have fewer columns.
_Pools = Mapping[tuple[int, int], np.ndarray]


def describe_spectrum(layer: Layer, *, seed: int = 0, squares: Tensor | None = None) -> dict[str, Any] | None:
    """Describe the eigenvalues of the matrices of a layer, and of the same matrices with shuffled entries.

    Dead vectors (`gram.living`) are no part of the matrices: their zeros would lower the median that scales the bulk.

    Args:
        layer: Weight of a linear or convolution layer.
        seed: Seed of the shuffle; the same seed and name give the same result.
        squares: Squared singular values of `layer.matrices()`, if they are known; without kernel positions and dead
            vectors they need not be computed again.

    Returns:
        None for a depthwise convolution, whose matrices are single numbers; else plain numbers, logarithms to base 10;
        lambda stands for an eigenvalue of a matrix's W^T W:

        - N, M, Q, rf: longer and shorter side of a matrix, N / M, and the number of kernel positions. If groups have
          different numbers of living vectors, those of the group with most.
        - num_evals: number of pooled eigenvalues, the shorter side of every matrix.
        - alpha, xmin, D, sigma, num_pl_spikes: of `fit_power_law`; None for fewer than `MIN_EIGENVALUES`.
        - norm, log_norm: squared Frobenius norm, the sum of lambda.
        - spectral_norm, log_spectral_norm: squared spectral norm, the largest lambda.
        - stable_rank: norm / spectral_norm.
        - alpha_weighted: alpha log10(spectral_norm). log_alpha_norm: log10 of the sum of lambda^alpha.
        - matrix_rank, rank_loss: lambda above rounding, and the others. entropy: of lambda / norm, over
          log(matrix_rank).
        - detX_num: number of largest lambda whose product is closest to 1 from below, when their mean is 1.
        - num_spikes, bulk_min, bulk_max, sigma_mp, mp_softrank: of `fit_bulk`.
        - shuffled: the same numbers of the matrices with the entries of each one permuted.
        - max_rand_eval, ww_softrank, ww_maxdist: largest shuffled lambda, its quotient by the largest lambda, and
          the largest lambda less it. rand_distance: Jensen-Shannon distance of the two sorted sets of lambda.

    Raises:
        InputError: If `Layer.matrices` raises it.
    """
    slices = kernel_slices(layer)
    if all(matrices[0].numel() == 1 for matrices in slices):
        return None
    generator = torch.Generator().manual_seed(seed_from(seed, "shuffled weight", layer.name))
    if squares is not None and slices[0].numel() == layer.tensor.numel() and math.prod(layer.tensor.shape[2:]) == 1:
        pools = {_shape(slices[0]): np.sort(squares.flatten().numpy())}
    else:
        pools = {_shape(matrices): _eigenvalues(matrices) for matrices in slices}
    random_pools = {_shape(matrices): _eigenvalues(_shuffled(matrices, generator)) for matrices in slices}
    measured, shuffled = _pooled(pools), _pooled(random_pools)
    shape = max(pools)
    rounding = _difference_by_rounding(layer.tensor.dtype, max(shape))
    largest, random_largest = float(measured[-1]), float(shuffled[-1])
    return {
        "N": max(shape),
        "M": min(shape),
        "Q": max(shape) / min(shape),
        "rf": math.prod(layer.tensor.shape[2:]),
        "num_evals": len(measured),
        **_numbers(pools, rounding),
        "shuffled": _numbers(random_pools, rounding),
        "max_rand_eval": random_largest,
        "ww_softrank": random_largest / largest,
        "ww_maxdist": largest - random_largest,
        "rand_distance": _jensen_shannon(measured, shuffled),
    }


def _difference_by_rounding(dtype: torch.dtype, side: int) -> float:
    """Up to which relative difference eigenvalues of an orthogonal weight differ.

    By the rounding of its entries, and of the decomposition that made it, which is hardly one in half precision.
    """
    eps = torch.finfo(dtype).eps
    return 16 * eps + side * min(eps, torch.finfo(torch.float32).eps)


def kernel_slices(layer: Layer) -> list[Tensor]:
    """Convert a weight to a matrix per kernel position and group, without the dead vectors.

    Args:
        layer: Weight of a linear or convolution layer.

    Returns:
        (positions * groups, C_in / groups, k) float64 for every number k > 0 of living vectors that a group has,
        ascending; a single tensor without dead vectors.

    Raises:
        InputError: If `Layer.matrices` raises it.
    """
    matrices, channels = layer.matrices(), layer.tensor.shape[1]
    alive = living(norms(matrices), layer.d_in)
    counts = alive.sum(dim=1)
    slices = []
    for count in counts[counts > 0].unique().tolist():
        chosen = counts == count
        # The vectors of these groups side by side, of which each group keeps `count`.
        columns = matrices[chosen].transpose(1, 2)[alive[chosen]]
        kernels = columns.reshape(int(chosen.sum()), count, channels, -1)
        slices.append(kernels.permute(3, 0, 2, 1).reshape(-1, channels, count).contiguous())
    return slices


def fit_power_law(eigenvalues: np.ndarray, rounding: float = 0.0) -> dict[str, Any]:
    """Fit the density C lambda^-alpha to the eigenvalues from some xmin on.

    For each candidate xmin, alpha is the maximum-likelihood estimate 1 + n / sum log(lambda / xmin) over the n
    eigenvalues from xmin on; of all candidates, the one of the smallest Kolmogorov-Smirnov distance is taken (Clauset,
    Shalizi and Newman 2009, "Power-law distributions in empirical data", equation 3.1 and section 3.3).

    Args:
        eigenvalues: (n,) float64 above 0, ascending.
        rounding: Relative difference up to which eigenvalues count as equal.

    Returns:
        - alpha: exponent, above 1.
        - sigma: its standard error (alpha - 1) / sqrt(n).
        - D: Kolmogorov-Smirnov distance, between the fit and the share of eigenvalues below each one of the tail.
        - xmin: smallest eigenvalue of the tail.
        - num_pl_spikes: number n of eigenvalues in the tail.

        All are None for fewer than `MIN_EIGENVALUES` eigenvalues, or if all are equal.
    """
    missing = dict.fromkeys(("alpha", "sigma", "D", "xmin", "num_pl_spikes"))
    if len(eigenvalues) < MIN_EIGENVALUES or eigenvalues[-1] - eigenvalues[0] <= rounding * eigenvalues[-1]:
        return missing
    logs = np.log(eigenvalues)
    # At [i]: of the eigenvalues from i on, their number, and the sum of log(lambda / xmin).
    counts = np.arange(len(logs), 0, -1)
    sums = np.cumsum(logs[::-1])[::-1] - counts * logs
    # The largest eigenvalues may be equal; rounding must not give them an exponent.
    usable = np.flatnonzero(logs < logs[-1])
    alphas = 1.0 + counts[usable] / sums[usable]
    best, distance = _closest_fit(logs, usable, alphas)
    start, alpha = usable[best], float(alphas[best])
    return {
        "alpha": alpha,
        "sigma": (alpha - 1.0) / math.sqrt(counts[start]),
        "D": distance,
        "xmin": float(eigenvalues[start]),
        "num_pl_spikes": int(counts[start]),
    }


def _closest_fit(logs: np.ndarray, starts: np.ndarray, alphas: np.ndarray) -> tuple[int, float]:
    """The start of the tail, of equal ones the first, with the smallest Kolmogorov-Smirnov distance, and the latter."""
    counts = len(logs) - starts

    def deviations(start: Any, places: np.ndarray, alpha: Any, count: Any) -> np.ndarray:
        return np.abs(-np.expm1((1.0 - alpha) * (logs[start + places] - logs[start])) - places / count)

    # The deviation at a few places is a lower bound of the distance, which rules out most starts.
    places = ((counts - 1)[:, None] * np.linspace(0.0, 1.0, _PLACES)).astype(np.int64)
    bounds = deviations(starts[:, None], places, alphas[:, None], counts[:, None]).max(axis=1)
    best, distance = len(starts), math.inf
    for i in np.argsort(bounds).tolist():
        if bounds[i] > distance:
            break
        found = float(deviations(starts[i], np.arange(counts[i]), alphas[i], counts[i]).max())
        best, distance = (i, found) if (found, i) < (distance, best) else (best, distance)
    return best, distance


def fit_bulk(eigenvalues: Mapping[tuple[int, int], np.ndarray]) -> dict[str, Any]:
    """Fit the Marchenko-Pastur density of independent entries to the bulk, and count the eigenvalues above it.

    The variance of an entry is the median eigenvalue over the median of the density for variance 1, which a few
    spikes do not change (Gavish and Donoho 2014, "The optimal hard threshold for singular values is 4 / sqrt(3)"). With
    matrices of several shapes, it is the median of the quotients by the median of the own density.

    Args:
        eigenvalues: By the sides of their matrices, (count * min(sides),) float64, ascending, of `count` matrices.

    Returns:
        - sigma_mp: standard deviation of an entry, times sqrt(N) and for a mean eigenvalue of 1; below 1 if spikes
          hold a part of the norm.
        - bulk_min, bulk_max: edges of the density; the outermost ones of several shapes.
        - mp_softrank: bulk_max / largest eigenvalue.
        - num_spikes: number of eigenvalues above what the largest of so many matrices of independent entries exceeds
          in one of a hundred cases. The largest has the distribution of Tracy and Widom (Johnstone 2001, "On the
          distribution of the largest eigenvalue in principal components analysis", theorem 1.1).

        All are None for matrices of a single row or column, whose only eigenvalue is a squared length, or if the
        median is zero up to rounding, since a matrix of so low a rank has no bulk.
    """
    missing = dict.fromkeys(("num_spikes", "sigma_mp", "bulk_min", "bulk_max", "mp_softrank"))
    fitted = {(max(shape), min(shape)): values for shape, values in eigenvalues.items() if min(shape) > 1}
    if not fitted:
        return missing
    medians = {sides: float(marchenko_pastur_quantiles(*sides, np.array([0.5]))[0]) for sides in fitted}
    variance = float(np.median(np.concatenate([values / medians[sides] for sides, values in fitted.items()])))
    pooled = _pooled(fitted)
    if float(np.median(pooled)) <= _rounding(fitted):
        return missing
    count = sum(len(values) // sides[1] for sides, values in fitted.items())
    lowest = min((math.sqrt(long) - math.sqrt(short)) ** 2 for long, short in fitted)
    highest = max((math.sqrt(long) + math.sqrt(short)) ** 2 for long, short in fitted)
    return {
        "num_spikes": sum(
            int((values > variance * _largest_by_chance(*sides, count)).sum()) for sides, values in fitted.items()
        ),
        "sigma_mp": math.sqrt(variance * max(fitted)[0] / float(pooled.mean())),
        "bulk_min": variance * lowest,
        "bulk_max": variance * highest,
        "mp_softrank": variance * highest / float(pooled[-1]),
    }


@lru_cache
def _largest_by_chance(long: int, short: int, count: int) -> float:
    """What the largest eigenvalue of `count` Gaussian matrices exceeds with a probability of `_FALSE_SPIKES`."""
    root = math.sqrt(long - 1) + math.sqrt(short)
    width = root * (1 / math.sqrt(long - 1) + 1 / math.sqrt(short)) ** (1 / 3)
    # The law of Tracy and Widom as a shifted gamma distribution: Chiani 2014, "Distribution of the largest eigenvalue
    # for real Wishart and Gaussian random matrices", table 1.
    quantile = float(gamma.isf(-math.expm1(math.log1p(-_FALSE_SPIKES) / count), 46.446, scale=0.186054)) - 9.84801
    return root**2 + width * quantile


def _numbers(pools: _Pools, rounding: float) -> dict[str, Any]:
    eigenvalues = _pooled(pools)
    norm, largest = float(eigenvalues.sum()), float(eigenvalues[-1])
    nonzero = eigenvalues[eigenvalues > _rounding(pools)]
    fit = fit_power_law(nonzero, rounding)
    alpha, share = fit["alpha"], nonzero / norm
    # Logarithms, since a power or a product of eigenvalues may be out of range.
    logs = np.log10(nonzero)
    products = np.cumsum((logs - math.log10(norm / len(eigenvalues)))[::-1])
    below = np.flatnonzero(products < 0)
    return {
        **fit,
        "norm": norm,
        "log_norm": math.log10(norm),
        "spectral_norm": largest,
        "log_spectral_norm": math.log10(largest),
        "stable_rank": norm / largest,
        "alpha_weighted": None if alpha is None else alpha * math.log10(largest),
        "log_alpha_norm": None if alpha is None else _log_sum(alpha * logs),
        "matrix_rank": len(nonzero),
        "rank_loss": len(eigenvalues) - len(nonzero),
        "entropy": float(-(share * np.log(share)).sum()) / math.log(len(nonzero)) if len(nonzero) > 1 else 0.0,
        "detX_num": int(below[0]) + 1 if len(below) else len(eigenvalues),
        **fit_bulk(pools),
    }


def _log_sum(exponents: np.ndarray) -> float:
    """log10 of the sum of 10^exponent."""
    largest = float(exponents.max())
    return largest + math.log10(float((10.0 ** (exponents - largest)).sum()))


def _jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Square root of the Jensen-Shannon divergence in nats; rounding must not make it the root of -1e-17."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return math.sqrt(max(0.0, float((rel_entr(p, middle) + rel_entr(q, middle)).sum()) / 2))


def _shape(matrices: Tensor) -> tuple[int, int]:
    return matrices.shape[1], matrices.shape[2]


def _rounding(pools: _Pools) -> float:
    """Below this an eigenvalue is zero, as for `numpy.linalg.matrix_rank` of singular values."""
    return float(_pooled(pools)[-1]) * (max(map(max, pools)) * np.finfo(np.float64).eps) ** 2


def _pooled(pools: _Pools) -> np.ndarray:
    return np.sort(np.concatenate(list(pools.values())))


def _eigenvalues(matrices: Tensor) -> np.ndarray:
    """The pooled squared singular values of matrices (count, rows, columns), ascending."""
    return np.sort(gram.squares(matrices).flatten().numpy())


def _shuffled(matrices: Tensor, generator: torch.Generator) -> Tensor:
    """The matrices with the entries of each one in a random order."""
    flat = matrices.flatten(1)
    order = torch.stack([torch.randperm(flat.shape[1], generator=generator) for _ in flat])
    return flat.gather(1, order).reshape(matrices.shape)
