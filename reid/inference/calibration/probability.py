"""The probability that a pair is a match, fitted on labeled pairs and validated on held-out identities.

A probability depends on a prior: the share of matches among the pairs it is applied to. The curve is fitted at that of
the data; another prior changes the odds by Bayes' rule, which needs no new fit.
"""

from __future__ import annotations

import math

import numpy as np

from reid.inference.calibration.pair_sampling import Pairs
from reid.inference.calibration.record import METHODS, Curve

_FOLDS = 5
_MAX_SAMPLE = 100_000
_BINS = 10


def fit_curve(pairs: Pairs, *, prior: float | None, seed: int = 0) -> Curve:
    """Fit a logistic (Platt 1999) and an isotonic (Zadrozny, Elkan 2002) curve and choose by held-out Brier score.

    Cross-validation is by identity, in five folds: a pair is used for fitting if neither of its identities is in the
    held-out fold, and for validation if both are. With too few identities for that, the logistic curve is chosen
    without validation.

    Args:
        pairs: Distances of matches and negatives, from `collect_pairs`.
        prior: Share of matches, None for that of the data.
        seed: Seed of the folds and of the subsampling.

    Returns:
        The better curve, fitted on all pairs.
    """
    distances, same, first, second, weights = _sample(pairs, seed)
    matches, negatives = len(pairs.match_distances), pairs.num_negatives()
    share = matches / (matches + negatives)
    prior = share if prior is None else prior
    fold_of_unit = np.random.default_rng(seed).permutation(pairs.num_units) % _FOLDS
    predictions: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    held_out: list[np.ndarray] = []
    for fold in range(_FOLDS):
        train = np.flatnonzero((fold_of_unit[first] != fold) & (fold_of_unit[second] != fold))
        test = np.flatnonzero((fold_of_unit[first] == fold) & (fold_of_unit[second] == fold))
        if not all(0 < same[rows].sum() < len(rows) for rows in (train, test)):
            continue
        scaled = _weights_at_prior(same[train], weights[train], share)
        for method in METHODS:
            curve = _fit(method, distances[train], same[train], scaled, share)
            predictions[method].append(curve.probability(distances[test], prior))
        held_out.append(test)
    if not held_out:
        curve = _fit("logistic", distances, same, _weights_at_prior(same, weights, share), share)
        return Curve("logistic", curve.parameters, prior, share=share)
    rows = np.concatenate(held_out)
    scaled = _weights_at_prior(same[rows], weights[rows], prior)
    predicted = {method: np.concatenate(parts) for method, parts in predictions.items()}
    errors = {method: float(scaled @ (predicted[method] - same[rows]) ** 2) for method in METHODS}
    best = min(METHODS, key=lambda method: errors[method])
    curve = _fit(best, distances, same, _weights_at_prior(same, weights, share), share)
    reliability = _reliability(predicted[best], same[rows], scaled)
    brier = (errors["logistic"], errors["isotonic"])
    return Curve(best, curve.parameters, prior, brier, prior * (1 - prior), reliability, share)


def _sample(pairs: Pairs, seed: int) -> tuple[np.ndarray, ...]:
    """Distances, labels, units of both images, and weights: how many pairs each pair of the sample represents.

    Near negatives are sampled more densely than far ones.
    """
    random = np.random.default_rng(seed)
    limit = float(pairs.limits.min())
    near = np.flatnonzero(pairs.near_distances <= limit)
    total, num_near = pairs.num_negatives(), len(near)
    if num_near > _MAX_SAMPLE:
        near = np.sort(random.choice(near, _MAX_SAMPLE, replace=False))
    far = np.flatnonzero(pairs.far_distances > limit)[:_MAX_SAMPLE]
    near_weight, far_weight = num_near / max(1, len(near)), (total - num_near) / max(1, len(far))
    parts = (
        (pairs.match_distances, pairs.match_units, pairs.match_units, 1.0),
        (pairs.near_distances[near], pairs.near_queries[near], pairs.near_galleries[near], near_weight),
        (pairs.far_distances[far], pairs.far_queries[far], pairs.far_galleries[far], far_weight),
    )
    distances, first, second = (np.concatenate([part[i] for part in parts]) for i in range(3))
    weights = np.concatenate([np.full(len(part[0]), part[3]) for part in parts])
    same = np.arange(len(distances)) < len(pairs.match_distances)
    return distances, same, first, second, weights


def _weights_at_prior(same: np.ndarray, weights: np.ndarray, prior: float) -> np.ndarray:
    """Scale weights so that they sum to 1, and those of the matches to the prior."""
    scaled = weights.copy()
    scaled[same] *= prior / weights[same].sum()
    scaled[~same] *= (1 - prior) / weights[~same].sum()
    return scaled


def _fit(method: str, distances: np.ndarray, same: np.ndarray, weights: np.ndarray, prior: float) -> Curve:
    # scikit-learn takes seconds to import, and a stored calibration does not need it.
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "logistic":
        # Standardized distances improve the convergence; C = inf disables the penalty.
        center, spread = float(np.average(distances, weights=weights)), max(float(distances.std()), 1e-6)
        logistic = LogisticRegression(C=math.inf, tol=1e-8, max_iter=1000)
        logistic.fit(((distances - center) / spread)[:, None], same, sample_weight=weights * len(weights))
        slope = max(-float(logistic.coef_[0, 0]) / spread, 1e-9)
        return Curve("logistic", (slope, -float(logistic.intercept_[0]) - slope * center), prior)
    isotonic = IsotonicRegression(increasing=False, out_of_bounds="clip")
    isotonic.fit(distances, same, sample_weight=weights)
    # A finite sample cannot justify probabilities of 0 or 1.
    minimum = 1 / (len(distances) + 2)
    y = np.clip(isotonic.y_thresholds_, minimum, 1 - minimum)
    return Curve("isotonic", (*isotonic.X_thresholds_.tolist(), *np.minimum.accumulate(y).tolist()), prior)


def _reliability(
    predicted: np.ndarray, same: np.ndarray, weights: np.ndarray
) -> tuple[tuple[float, float, float], ...]:
    """(mean probability, observed share, share of pairs) of each nonempty bin of the probability."""
    bins = np.minimum((predicted * _BINS).astype(np.int64), _BINS - 1)
    rows = []
    for number in range(_BINS):
        here = bins == number
        total = float(weights[here].sum())
        if total > 0:
            mean, observed = (float(weights[here] @ values[here]) / total for values in (predicted, same.astype(float)))
            rows.append((mean, observed, total))
    return tuple(rows)
