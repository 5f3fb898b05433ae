"""Match probabilities, compared with known distributions and scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from inference.calibration.test_thresholds import one_dimension, random_features
from scipy import stats
from sklearn.linear_model import LogisticRegression

from reid.errors import InputError
from reid.inference.calibration import Calibration, Curve, calibrate
from reid.inference.calibration.probability import fit_curve


def true_probability(distance: np.ndarray, prior: float) -> np.ndarray:
    """Of N(0.8, 0.15) and N(1.2, 0.15), whose log odds are a straight line."""
    same, other = prior * stats.norm.pdf(distance, 0.8, 0.15), (1 - prior) * stats.norm.pdf(distance, 1.2, 0.15)
    return same / (same + other)


@pytest.mark.parametrize("prior", [None, 0.5, 0.01])
def test_gaussian_distances_give_the_true_probability(prior: float | None) -> None:
    random = np.random.default_rng(0)
    pairs = one_dimension(random.normal(0.8, 0.15, 3000), random.normal(1.2, 0.15, 9000), galleries=2)
    curve = fit_curve(pairs, prior=prior)
    assert curve.prior == (3000 / (3000 + 2 * 9000) if prior is None else prior)
    distances = np.linspace(0.6, 1.4, 17)
    np.testing.assert_allclose(curve.probability(distances), true_probability(distances, curve.prior), atol=0.08)
    # Another prior afterwards is as good as fitting at it.
    moved = curve.probability(distances, prior=0.1)
    np.testing.assert_allclose(moved, true_probability(distances, 0.1), atol=0.08)
    expected = curve.prior * (1 - curve.prior)
    assert curve.no_skill == pytest.approx(expected) and min(curve.brier) < 0.7 * expected
    best = true_probability(random.normal(0.8, 0.15, 4000), curve.prior)
    assert min(curve.brier) > curve.prior * ((1 - best) ** 2).mean()  # nobody beats the truth
    for said, seen, share in curve.reliability:
        assert share < 0.02 or said == pytest.approx(seen, abs=0.12)
    assert sum(share for _, _, share in curve.reliability) == pytest.approx(1)


def test_isotonic_is_taken_where_the_odds_are_no_line() -> None:
    random = np.random.default_rng(1)
    same = np.concatenate([random.uniform(0.2, 0.4, 1500), random.uniform(1.0, 1.6, 1500)])
    curve = fit_curve(one_dimension(same, random.uniform(0.4, 1.6, 6000), galleries=20), prior=None)
    assert curve.method == "isotonic" and curve.brier[0] > curve.brier[1]
    said = curve.probability(np.linspace(0, 2, 300))
    assert (np.diff(said) <= 1e-12).all() and said.min() > 0 and said.max() < 1


def test_logistic_equals_scikit_learn() -> None:
    query, gallery = random_features(0, people=3)
    curve = calibrate(query, gallery, rates=[0.3], replicates=2).curve
    if curve.method == "logistic" and math.isnan(curve.brier[0]):
        assert curve.reliability == ()
    random = np.random.default_rng(2)
    same, others = random.normal(0.8, 0.2, 500), random.normal(1.2, 0.2, 1500)
    from reid.inference.calibration.probability import _fit

    distances, labels = np.concatenate([same, others]), np.arange(2000) < 500
    ours = _fit("logistic", distances, labels, np.full(2000, 1 / 2000), 0.25)
    theirs = LogisticRegression(C=math.inf, tol=1e-10, max_iter=10_000).fit(distances[:, None], labels)
    at = np.linspace(0.2, 2, 20)
    np.testing.assert_allclose(ours.probability(at), theirs.predict_proba(at[:, None])[:, 1], atol=1e-4)


def test_the_record_goes_through_json_and_checks_itself() -> None:
    found = calibrate(*random_features(5), replicates=5, model_id="m", dataset="d")
    plain = json.loads(json.dumps(found.to_plain()))
    assert Calibration.from_plain(plain) == found
    # In the first format the curve was fitted at its prior.
    earlier = {**plain, "format": 1, "curve": {**plain["curve"], "prior": 0.3}}
    del earlier["curve"]["share"]
    first = Calibration.from_plain(earlier)
    np.testing.assert_array_equal(first.probability([0.3, 1.1]), first.probability([0.3, 1.1], prior=0.3))
    np.testing.assert_array_equal(found.probability([0.3, 1.1]), found.curve.probability([0.3, 1.1]))
    for change, message in (
        ({"format": 3}, "format 3"),
        ({"curve": {}}, "not a calibration of this project"),
        ({"thresholds": [{"rate": 2}]}, "not a calibration of this project"),
        ({"surplus": 1}, "not a calibration of this project"),
        ({"curve": {**plain["curve"], "parameters": [-1.0, 0.0], "method": "logistic"}}, "must fall"),
        ({"curve": {**plain["curve"], "method": "guess"}}, "'guess'"),
    ):
        with pytest.raises(InputError, match=message):
            Calibration.from_plain({**plain, **change}, "file")
    for wrong in (None, [], "text"):
        with pytest.raises(InputError, match="not a calibration"):
            Calibration.from_plain(wrong)


@pytest.mark.parametrize("prior", [1e-9, 1e-6, 0.9])
def test_a_prior_when_calibrating_is_one_when_searching(prior: float) -> None:
    query, gallery = random_features(5)
    before = calibrate(query, gallery, replicates=5, prior=prior).curve
    after = calibrate(query, gallery, replicates=5).curve
    distances = np.linspace(0, 2, 50)
    if before.method == after.method:
        np.testing.assert_allclose(before.probability(distances), after.probability(distances, prior), rtol=1e-9)
    assert (before.prior, before.share) == (prior, after.prior)


def test_extreme_distances_and_priors() -> None:
    curve = Curve("logistic", (500.0, -400.0), 1e-6)
    np.testing.assert_allclose(curve.probability([0.0, 0.8, 2.0]), [1.0, 0.5, 0.0], atol=1e-12)
    with pytest.raises(InputError, match="a prior is a share"):
        curve.probability([1.0], prior=0.0)
