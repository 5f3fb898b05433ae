"""Distance thresholds for false-match rates, with bootstrap confidence intervals.

Pairs are dependent, since an image is part of thousands of them and an identity of more. The bootstrap therefore
resamples identities instead of pairs: in each replicate every unit counts as often as it was drawn, and a pair of two
units as the product of both (the subsets bootstrap of Bolle, Ratha, Pankanti 2004, with identities as subsets; copies
of one identity are not paired with each other). Intervals are percentiles of the replicates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.inference.calibration.pair_sampling import Pairs
from reid.inference.calibration.record import CameraPair, Threshold

# From 30 errors on, the observed error rate is within 30 % of the true one at 90 % confidence (Doddington et al. 2000).
MIN_FALSE_MATCHES = 30
# Identities seen by both cameras of a camera pair with thresholds of its own.
MIN_IDENTITIES = 20
_INTERVAL = (2.5, 97.5)


def thresholds(
    pairs: Pairs, rates: Sequence[float], *, replicates: int, seed: int = 0, cell: int | None = None
) -> tuple[Threshold, ...]:
    """Compute the largest distance at which the share of accepted negatives does not exceed each rate.

    Args:
        pairs: Distances of matches and negatives, from `collect_pairs`.
        rates: False-match rates in (0, 1).
        replicates: Number of bootstrap samples for the intervals.
        seed: Seed of the bootstrap.
        cell: Use only pairs of this cell of cameras.

    Returns:
        A threshold per rate. For a cell, rates that cannot be met are omitted.

    Raises:
        InputError: If even a threshold of 0 exceeds a rate, because many negatives have equal features.
    """
    subset = _Subset.of(pairs, cell)
    point = subset.estimate(rates, None)
    unattainable = [rate for rate, distance in zip(rates, point[:, 0], strict=True) if distance == 0]
    if unattainable and cell is None:
        raise InputError(
            f"more than a share of {unattainable[0]:g} of the pairs of different identities have equal features; does "
            "an image appear under two identities, or has the model collapsed?"
        )
    random = np.random.default_rng(seed)
    uniform = np.full(pairs.num_units, 1 / pairs.num_units)
    draws = (random.multinomial(pairs.num_units, uniform) for _ in range(replicates))
    estimates = np.stack([subset.estimate(rates, draw.astype(np.float64)) for draw in draws])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # for columns of NaN only
        low, high = np.nanpercentile(estimates, _INTERVAL, axis=0)
    low, high = np.where(np.isnan(low), point, low), np.where(np.isnan(high), point, high)
    return tuple(
        Threshold(rate, *map(float, (point[i, 0], low[i, 0], high[i, 0], point[i, 1], low[i, 1], high[i, 1])))
        for i, rate in enumerate(rates)
        if rate not in unattainable
    )


def camera_pair_thresholds(
    pairs: Pairs, rates: Sequence[float], *, replicates: int, seed: int = 0
) -> tuple[CameraPair, ...]:
    """Compute thresholds for every pair of cameras with enough shared identities and enough negatives.

    Args:
        pairs: Distances of matches and negatives, from `collect_pairs`.
        rates: False-match rates in (0, 1).
        replicates: Number of bootstrap samples for the intervals.
        seed: Seed of the bootstrap.

    Returns:
        The camera pairs with at least one threshold.
    """
    found = []
    for cell in np.unique(pairs.match_cells).tolist():
        first, second = divmod(cell, len(pairs.cameras))
        here = pairs.match_cells == cell
        negatives = pairs.num_negatives(cell=cell)
        supported = [rate for rate in rates if negatives * rate >= MIN_FALSE_MATCHES]
        if not supported or len(np.unique(pairs.match_units[here])) < MIN_IDENTITIES:
            continue
        own = thresholds(pairs, supported, replicates=replicates, seed=seed, cell=cell)
        if not own:
            continue
        a, b = (int(pairs.cameras[camera]) for camera in (first, second))
        found.append(CameraPair(a, b, int(here.sum()), round(negatives), own))
    return tuple(found)


@dataclass(frozen=True)
class _Subset:
    """The pairs of one cell of cameras, or all pairs; negatives only up to `limit`, where all of them are kept."""

    pairs: Pairs
    cell: int | None
    matches: np.ndarray
    match_units: np.ndarray
    negatives: np.ndarray
    first: np.ndarray
    second: np.ndarray
    limit: float

    @classmethod
    def of(cls, pairs: Pairs, cell: int | None) -> _Subset:
        match = np.ones(len(pairs.match_units), dtype=bool) if cell is None else pairs.match_cells == cell
        near = np.ones(len(pairs.near_cells), dtype=bool) if cell is None else pairs.near_cells == cell
        limit = float(pairs.limits.min() if cell is None else pairs.limits[cell])
        near &= pairs.near_distances <= limit
        return cls(
            pairs,
            cell,
            matches=pairs.match_distances[match],
            match_units=pairs.match_units[match],
            negatives=pairs.near_distances[near],
            first=pairs.near_queries[near],
            second=pairs.near_galleries[near],
            limit=limit,
        )

    def estimate(self, rates: Sequence[float], weights: np.ndarray | None) -> np.ndarray:
        """(rates, 2) distances and true-match rates, with (U,) weights of the units or None for 1 each."""
        if weights is None:
            accepted, true = np.arange(1.0, len(self.negatives) + 1), np.arange(1.0, len(self.matches) + 1)
        else:
            accepted = np.cumsum(weights[self.first] * weights[self.second])
            true = np.cumsum(weights[self.match_units])
        total = self.pairs.num_negatives(weights, self.cell)
        result = np.full((len(rates), 2), np.nan)
        if total <= 0:  # the replicate has no negatives
            return result
        for i, rate in enumerate(rates):
            # The first negative that exceeds the rate; 1e-6 absorbs the rounding of rate * total.
            index = int(np.searchsorted(accepted, rate * total + 1e-6, side="right"))
            edge = self.negatives[index] if index < len(self.negatives) else min(self.limit, 2.0)
            result[i, 0] = np.nextafter(edge, 0.0)
            num_matches = int(np.searchsorted(self.matches, result[i, 0], side="right"))
            if len(self.matches) and true[-1] > 0:
                result[i, 1] = (true[num_matches - 1] if num_matches else 0.0) / true[-1]
        return result
