"""The probability that a pair is one person, fitted on labeled pairs and tried on people left out.

A probability needs a prior: the share of pairs, among those asked about, that are one person. Pairs are weighted so
that it is the one wanted; another one moves the odds by Bayes' rule, which needs no new fit.
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from reid.inference.calibration.pair_sampling import Pairs
from reid.inference.calibration.record import METHODS, Curve

_FOLDS = 5
_KEPT = 100_000
_BINS = 10


def fit_curve(pairs: Pairs, *, prior: float | None, seed: int = 0) -> Curve:
    """Logistic (Platt 1999) or isotonic (Zadrozny, Elkan 2002), whichever has the lower Brier score on people left out.

    prior: share of pairs of one person, None for that of the data. Cross-validation is by people, in five parts: a pair
    is fitted on where neither of its people is in the part left out and tried where both are. With too few people to
    leave some out the logistic one is taken, untried.
    """
    distances, same, first, second, weights = _sample(pairs, seed)
    matches, others = len(pairs.match_distances), pairs.num_negatives()
    share = matches / (matches + others) if prior is None else prior
    part = np.random.default_rng(seed).permutation(pairs.num_units) % _FOLDS
    tried: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    left_out: list[np.ndarray] = []
    for fold in range(_FOLDS):
        fitted = np.flatnonzero((part[first] != fold) & (part[second] != fold))
        held = np.flatnonzero((part[first] == fold) & (part[second] == fold))
        if not all(0 < same[rows].sum() < len(rows) for rows in (fitted, held)):
            continue
        scaled = _at_prior(same[fitted], weights[fitted], share)
        for method in METHODS:
            curve = _fit(method, distances[fitted], same[fitted], scaled, share)
            tried[method].append(curve.probability(distances[held]))
        left_out.append(held)
    if not left_out:
        return _fit("logistic", distances, same, _at_prior(same, weights, share), share)
    rows = np.concatenate(left_out)
    scaled = _at_prior(same[rows], weights[rows], share)
    said = {method: np.concatenate(parts) for method, parts in tried.items()}
    errors = {method: float(scaled @ (said[method] - same[rows]) ** 2) for method in METHODS}
    best = min(METHODS, key=lambda method: errors[method])
    chosen = _fit(best, distances, same, _at_prior(same, weights, share), share)
    reliability = _reliability(said[best], same[rows], scaled)
    brier = (errors["logistic"], errors["isotonic"])
    return Curve(best, chosen.parameters, share, brier, share * (1 - share), reliability)


def _sample(pairs: Pairs, seed: int) -> tuple[np.ndarray, ...]:
    """Distances, labels, the units of both images and how many pairs each stands for: near pairs are drawn densely."""
    random = np.random.default_rng(seed)
    limit = float(pairs.limits.min())
    near = np.flatnonzero(pairs.near_distances <= limit)
    total, held = pairs.num_negatives(), len(near)
    if held > _KEPT:
        near = np.sort(random.choice(near, _KEPT, replace=False))
    far = np.flatnonzero(pairs.far_distances > limit)[:_KEPT]
    parts = (
        (pairs.match_distances, pairs.match_units, pairs.match_units, 1.0),
        (
            pairs.near_distances[near],
            pairs.near_queries[near],
            pairs.near_galleries[near],
            held / max(1, len(near)),
        ),
        (pairs.far_distances[far], pairs.far_queries[far], pairs.far_galleries[far], (total - held) / max(1, len(far))),
    )
    distances, first, second = (np.concatenate([part[i] for part in parts]) for i in range(3))
    weights = np.concatenate([np.full(len(part[0]), part[3]) for part in parts])
    same = np.arange(len(distances)) < len(pairs.match_distances)
    return distances, same, first, second, weights


def _at_prior(same: np.ndarray, weights: np.ndarray, prior: float) -> np.ndarray:
    """Weights that sum to 1, those of pairs of one person to the prior."""
    scaled = weights.copy()
    scaled[same] *= prior / weights[same].sum()
    scaled[~same] *= (1 - prior) / weights[~same].sum()
    return scaled


def _fit(method: str, distances: np.ndarray, same: np.ndarray, weights: np.ndarray, prior: float) -> Curve:
    if method == "logistic":
        # Distances about their middle, which the solver likes; the penalty is off.
        middle, spread = float(np.average(distances, weights=weights)), max(float(distances.std()), 1e-6)
        fitted = LogisticRegression(C=math.inf, tol=1e-8, max_iter=1000)
        fitted.fit(((distances - middle) / spread)[:, None], same, sample_weight=weights * len(weights))
        slope = max(-float(fitted.coef_[0, 0]) / spread, 1e-9)
        return Curve("logistic", (slope, -float(fitted.intercept_[0]) - slope * middle), prior)
    fitted = IsotonicRegression(increasing=False, out_of_bounds="clip")
    fitted.fit(distances, same, sample_weight=weights)
    # No sample makes anything certain: one more pair of the other kind might have been there.
    least = 1 / (len(distances) + 2)
    y = np.clip(fitted.y_thresholds_, least, 1 - least)
    return Curve("isotonic", (*fitted.X_thresholds_.tolist(), *np.minimum.accumulate(y).tolist()), prior)


def _reliability(said: np.ndarray, same: np.ndarray, weights: np.ndarray) -> tuple[tuple[float, float, float], ...]:
    """(mean probability, observed share, share of pairs) of each bin of the probability that holds pairs."""
    bins = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
    found = []
    for number in range(_BINS):
        here = bins == number
        total = float(weights[here].sum())
        if total > 0:
            mean, observed = (float(weights[here] @ values[here]) / total for values in (said, same.astype(float)))
            found.append((mean, observed, total))
    return tuple(found)
