"""Distances for wanted false-match rates, and how far to trust them.

Pairs are dependent: an image is in thousands of them and a person in more. The interval therefore comes from drawing
people, not pairs: in each replicate every unit counts as often as it was drawn, a pair of two people as the product of
both (the subsets bootstrap of Bolle, Ratha, Pankanti 2004, with people as subsets; copies of one person are not set
against each other). Percentiles of the replicates are the interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from reid.errors import InputError
from reid.inference.calibration.pair_sampling import Pairs
from reid.inference.calibration.record import CameraPair, Threshold

# The error found is within 30 % of the true one, at 90 % confidence, from 30 errors on (Doddington et al. 2000).
LEAST_ERRORS = 30
# People a camera pair must share for thresholds of its own.
LEAST_PEOPLE = 20
_INTERVAL = (2.5, 97.5)


def supported(others: float, rate: float) -> bool:
    """Whether so many pairs of different people are enough to find the distance for a false-match rate."""
    return others * rate >= LEAST_ERRORS


def thresholds(
    pairs: Pairs, rates: Sequence[float], *, replicates: int, seed: int = 0, cell: int | None = None
) -> tuple[Threshold, ...]:
    """A threshold for each of `rates`, of all pairs or of one cell of cameras: the largest with at most that rate.

    Raises InputError where even 0 accepts more, as many pairs of different people are equal; a cell leaves such rates
    out.
    """
    match = np.ones(len(pairs.match_units), dtype=bool) if cell is None else pairs.match_cells == cell
    near = np.ones(len(pairs.near_cells), dtype=bool) if cell is None else pairs.near_cells == cell
    matches, match_units = pairs.match_distances[match], pairs.match_units[match]
    others, first, second = pairs.near_distances[near], pairs.near_queries[near], pairs.near_galleries[near]
    # Beyond it not all pairs were kept.
    limit = float(pairs.limits.min() if cell is None else pairs.limits[cell])
    inside = others <= limit
    others, first, second = others[inside], first[inside], second[inside]

    def at(weights: np.ndarray | None) -> np.ndarray:
        """(rates, 2): distance and true-match rate."""
        kept = np.arange(1.0, len(others) + 1) if weights is None else np.cumsum(weights[first] * weights[second])
        gained = np.arange(1.0, len(matches) + 1) if weights is None else np.cumsum(weights[match_units])
        total = pairs.num_negatives(weights, cell)
        found = np.full((len(rates), 2), np.nan)
        if total <= 0:  # nobody was drawn who could be taken for another
            return found
        for i, rate in enumerate(rates):
            # The first pair that may not be accepted any more; the sum forgives the rounding of rate * total.
            place = int(np.searchsorted(kept, rate * total + 1e-6, side="right"))
            edge = others[place] if place < len(others) else min(limit, 2.0)
            found[i, 0] = np.nextafter(edge, 0.0)
            held = int(np.searchsorted(matches, found[i, 0], side="right"))
            if len(matches) and gained[-1] > 0:
                found[i, 1] = (gained[held - 1] if held else 0.0) / gained[-1]
        return found

    point = at(None)
    equal = [rate for rate, distance in zip(rates, point[:, 0], strict=True) if distance == 0]
    if equal and cell is None:
        raise InputError(
            f"more pairs of different people than a share of {equal[0]:g} have equal features: is one image there "
            "under two identities, or has the model collapsed?"
        )
    random = np.random.default_rng(seed)
    draws = (
        random.multinomial(pairs.num_units, np.full(pairs.num_units, 1 / pairs.num_units)) for _ in range(replicates)
    )
    drawn = np.stack([at(draw.astype(np.float64)) for draw in draws])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column of NaN, which stays one
        low, high = np.nanpercentile(drawn, _INTERVAL, axis=0)
    low, high = np.where(np.isnan(low), point, low), np.where(np.isnan(high), point, high)
    return tuple(
        Threshold(rate, *map(float, (point[i, 0], low[i, 0], high[i, 0], point[i, 1], low[i, 1], high[i, 1])))
        for i, rate in enumerate(rates)
        if rate not in equal
    )


def camera_pairs(pairs: Pairs, rates: Sequence[float], *, replicates: int, seed: int = 0) -> tuple[CameraPair, ...]:
    """Every pair of two cameras with enough people seen by both and enough pairs for at least one rate."""
    found = []
    for cell in np.unique(pairs.match_cells).tolist():
        first, second = divmod(cell, len(pairs.cameras))
        here = pairs.match_cells == cell
        others = pairs.num_negatives(cell=cell)
        wanted = [rate for rate in rates if supported(others, rate)]
        if not wanted or len(np.unique(pairs.match_units[here])) < LEAST_PEOPLE:
            continue
        own = thresholds(pairs, wanted, replicates=replicates, seed=seed, cell=cell)
        if not own:
            continue
        a, b = (int(pairs.cameras[camera]) for camera in (first, second))
        found.append(CameraPair(a, b, int(here.sum()), round(others), own))
    return tuple(found)
