"""Statistics of an embedding: spectrum, correlation and effective rank of its covariance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reid.errors import InputError

# Rows converted to float64 at a time, to avoid a float64 copy of all features.
_BLOCK_ROWS = 4096
# Squares of numbers between this value and its inverse, and their sums, fit into float64.
_MAX_MAGNITUDE = 1e140


def covariance(values: np.ndarray) -> np.ndarray:
    """Compute the sample covariance C: the sum of (x - mean)(x - mean)^T over N - 1.

    Args:
        values: (N, D) floating.

    Returns:
        (D, D) float64; exactly zero for a dimension in which all rows are equal.

    Raises:
        InputError: If there are fewer than two rows, rows are not finite, all rows are equal, or squares are out of
            float64's range.
    """
    if values.ndim != 2 or len(values) < 2 or values.shape[1] == 0:
        raise InputError(f"a covariance needs at least two feature rows, (N, D), not {values.shape}")
    mean = values.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError(f"some of the {len(values)} feature rows hold NaN or infinity; has the training diverged?")
    low, high = (side.astype(np.float64) for side in (values.min(axis=0), values.max(axis=0)))
    constant = low == high
    if constant.all():
        raise InputError(
            f"all {len(values)} feature rows are equal, so they have no covariance; has the network collapsed?"
        )
    largest, spread = float(np.maximum(-low, high).max()), 2 * float((high / 2 - low / 2).max())
    if largest > _MAX_MAGNITUDE or spread < 1 / _MAX_MAGNITUDE:
        raise InputError(
            f"the {len(values)} feature rows have entries up to {largest:.3g} and differ by up to {spread:.3g}, "
            "whose squares are out of float64's range; scale the features"
        )
    total = np.zeros((values.shape[1], values.shape[1]))
    for start in range(0, len(values), _BLOCK_ROWS):
        centered = values[start : start + _BLOCK_ROWS].astype(np.float64) - mean
        # The mean of equal numbers may be rounded, which would leave a nonzero variance.
        centered[:, constant] = 0.0
        total += centered.T @ centered
    return total / (len(values) - 1)


def describe_features(values: np.ndarray) -> dict[str, Any]:
    """Describe features by statistics of their covariance C, computed in float64.

    Args:
        values: (N, D) floating.

    Returns:
        Plain values:

        - images, dimensions: N and D.
        - dead: number of dimensions whose standard deviation is zero, or below max(N, D) eps times the largest one,
          its rounding error in float64.
        - total_variance: trace of C.
        - spectrum: D eigenvalues of C, descending, none below zero.
        - correlation: S(C) = sum_i c_ii / sum_ij |c_ij| in [1/D, 1], the form of S(W) with C in place of the Gram
          matrix; 1 if no two dimensions correlate.
        - mean_absolute_correlation: mean of |c_ij| / sqrt(c_ii c_jj) over pairs i < j of dimensions that are not dead,
          in [0, 1]; None if fewer than two are left.
        - by_chance: its value for N independent Gaussian rows with independent dimensions, sqrt(2 / (pi (N - 1))).
        - effective_rank: exp of the entropy of the normalized eigenvalues, in [1, D] (Roy and Vetterli 2007, who use
          singular values).
        - variance: for k = 1, 2, 4, ..., D the share of the total variance in the first k dimensions and in the first
          k principal components: {"k", "dimensions", "components"}.

    Raises:
        InputError: If `covariance` raises it.
    """
    c = covariance(values)
    diagonal = c.diagonal()
    rounding = max(len(values), len(c)) * np.finfo(np.float64).eps
    alive = diagonal > rounding**2 * diagonal.max()
    eigenvalues = np.maximum(np.linalg.eigvalsh(c)[::-1], 0.0)
    shares = eigenvalues / eigenvalues.sum()
    by_dimension, by_component = (np.cumsum(v) / np.sum(v) for v in (diagonal, eigenvalues))
    return {
        "images": len(values),
        "dimensions": len(c),
        "dead": int((~alive).sum()),
        "total_variance": float(diagonal.sum()),
        "spectrum": eigenvalues.tolist(),
        "correlation": min(1.0, float(diagonal.sum() / np.abs(c).sum())),
        "mean_absolute_correlation": _mean_absolute_correlation(c, alive),
        "by_chance": math.sqrt(2.0 / (math.pi * (len(values) - 1))),
        "effective_rank": float(np.exp(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum())),
        "variance": [
            {"k": k, "dimensions": float(by_dimension[k - 1]), "components": float(by_component[k - 1])}
            for k in doubling(1, len(c))
        ],
    }


def doubling(first: int, last: int) -> list[int]:
    """List `first`, 2 `first`, 4 `first`, ... below `last`, and `last` itself.

    Args:
        first: Smallest number, above 0.
        last: Largest number, always included.

    Returns:
        Numbers in ascending order.
    """
    numbers = []
    while first < last:
        numbers.append(first)
        first *= 2
    return [*numbers, last]


def _mean_absolute_correlation(c: np.ndarray, alive: np.ndarray) -> float | None:
    count = int(alive.sum())
    if count < 2:
        return None
    deviations = np.sqrt(c.diagonal()[alive])
    absolute = np.abs(c[np.ix_(alive, alive)] / deviations / deviations[:, None])
    return float((absolute.sum() - absolute.trace()) / (count * (count - 1)))
