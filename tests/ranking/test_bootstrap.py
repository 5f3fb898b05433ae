from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from reid.errors import InputError
from reid.ranking import evaluate, paired_bootstrap, rank_matches, score_difference
from reid.ranking.bootstrap import paired_bootstrap_of_runs
from reid.records import Features, Scores


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Two measures of 60 queries under two rankings, the second of which is better by 0.05."""
    random = np.random.default_rng(3)
    reference = random.uniform(0, 0.7, (60, 2))
    return reference + random.normal(0.05, 0.1, (60, 2)), reference


def test_equals_the_percentile_interval_of_scipy(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    found = paired_bootstrap(*pairs, resamples=20_000)
    expected = stats.bootstrap(
        pairs,
        lambda values, reference, axis: np.mean(values - reference, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    np.testing.assert_allclose(found[:, 0], (pairs[0] - pairs[1]).mean(axis=0))
    np.testing.assert_allclose(found[:, 1:], np.stack(expected, axis=1), atol=0.0012)  # a tenth of the standard error


def test_equals_all_resamples_of_three_queries() -> None:
    # Of the 27 draws from differences 0, 0, 3, the means 0, 1, 2, 3 have the probabilities 8, 12, 6 and 1 of 27.
    assert paired_bootstrap(np.array([1.0, 2, 5]), np.array([1.0, 2, 2])).tolist() == [1, 0, 3]
    assert paired_bootstrap(np.array([1.0, 2, 5]), np.array([1.0, 2, 2]), level=0.9).tolist() == [1, 0, 2]


def test_interval_of_runs_equals_all_resamples_of_seeds_and_queries() -> None:
    random = np.random.default_rng(1)
    differences = random.normal(size=(3, 4)) + random.normal(size=(3, 1))
    seeds, queries = (np.array(list(itertools.product(range(count), repeat=count))) for count in differences.shape)
    means = differences[seeds[:, None, :, None], queries[None, :, None, :]].mean(axis=(2, 3))
    found = paired_bootstrap_of_runs(differences + 7, np.full((3, 4), 7.0), level=0.9, resamples=40_000)
    assert found[0] == pytest.approx(differences.mean())
    for end, quantile in zip(found[1:], (0.05, 0.95), strict=True):  # the means are discrete, with gaps
        assert np.quantile(means, quantile - 0.01) <= end <= np.quantile(means, quantile + 0.01)
    # The interval over queries alone is narrower.
    pooled = paired_bootstrap(differences.mean(axis=0), np.zeros(4), level=0.9)
    assert found[1] < pooled[1] and found[2] > pooled[2]


def test_persons_are_drawn_with_all_their_queries() -> None:
    # Two persons of one and of two queries: 1 alone (a quarter of the draws), both (a half), 2 alone.
    values, persons = np.array([0.0, 3.0, 6.0]), np.array([7, 9, 9])
    assert paired_bootstrap(values, np.zeros(3), persons).tolist() == [3, 0, 4.5]
    assert paired_bootstrap(values, np.zeros(3), persons, level=0.4).tolist() == [3, 3, 3]
    doubled = np.repeat(values, 2)
    own = paired_bootstrap(values, np.zeros(3))
    np.testing.assert_array_equal(paired_bootstrap(doubled, np.zeros(6), np.repeat(np.arange(3), 2)), own)
    with pytest.raises(InputError, match="2 identities for 3 queries"):
        paired_bootstrap(values, np.zeros(3), persons[:2])


def test_interval_of_runs_with_several_measures(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    together = paired_bootstrap_of_runs(pairs[0][None], pairs[1][None], resamples=20_000)
    np.testing.assert_allclose(together, paired_bootstrap(*pairs, resamples=20_000), atol=0.002)
    with pytest.raises(InputError, match="same queries"):
        paired_bootstrap_of_runs(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match=r"trainings, queries"):
        paired_bootstrap_of_runs(np.ones(3), np.ones(3))


def test_the_seed_decides(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    first, again = (paired_bootstrap(*pairs, resamples=100) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (paired_bootstrap(*pairs, resamples=100, seed=1) != first).any()


def test_rejects_what_is_not_paired() -> None:
    with pytest.raises(InputError, match="same queries"):
        paired_bootstrap(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="without a true match"):
        paired_bootstrap(np.array([1.0, np.nan]), np.ones(2))
    with pytest.raises(InputError, match="level"):
        paired_bootstrap(np.ones(2), np.ones(2), level=95)


def test_scores_keep_their_queries() -> None:
    random = np.random.default_rng(0)
    query = Features(random.normal(size=(7, 4)), np.arange(1, 8), np.ones(7, dtype=int))
    # Identity 7 is missing, so that the last query has no match.
    gallery = Features(random.normal(size=(30, 4)), random.permutation(np.arange(30) % 6 + 1), np.full(30, 2))
    with pytest.warns(UserWarning, match="no true match"):
        scores = evaluate(query, gallery)
    ranking = rank_matches(query, gallery)
    expected = [ranking.first_hit == 1, ranking.average_precision, ranking.inverse_negative_penalty]
    np.testing.assert_array_equal(scores.per_query, np.stack(expected, axis=1)[:6])
    assert scores.identities is not None and scores.identities.tolist() == [1, 2, 3, 4, 5, 6]
    assert not {"per_query", "identities"} & scores.to_json().keys()

    worse = dataclasses.replace(scores, per_query=scores.per_query / 2)
    difference = score_difference(scores, worse)
    assert difference is not None and list(difference) == ["rank1", "mAP", "mINP"]
    for name, (mean, low, high) in difference.items():
        assert mean == pytest.approx(getattr(scores, name) / 2) and low <= mean <= high
    assert score_difference(scores, worse.without_queries()) is None
    with pytest.raises(InputError, match="different queries"):
        score_difference(scores, dataclasses.replace(worse, identities=scores.identities + 1))
    assert isinstance(scores, Scores)
