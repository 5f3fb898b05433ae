"""Thresholds, compared with hand-computed cases, plain loops, SciPy and known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reid.errors import InputError
from reid.evaluation.retrieval import unit_rows
from reid.inference.calibration import calibrate
from reid.inference.calibration import pair_sampling as pairs_module
from reid.inference.calibration.pair_sampling import Pairs, collect_pairs
from reid.inference.calibration.thresholds import camera_pair_thresholds, thresholds
from reid.ranking.protocols.verification import verify
from reid.records import Features


def random_features(seed: int, people: int = 30, noise: float = 0.5, gallery: int = 6) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(people + 1, 12))

    def side(each: int, junk: int, distractors: int) -> Features:
        identities = np.concatenate([np.repeat(np.arange(1, people + 1), each), [-1] * junk, [0] * distractors])
        identities = identities.astype(np.int64)
        values = centers[np.maximum(identities, 0)] + noise * random.normal(size=(len(identities), 12))
        return Features(values.astype(np.float32), identities, random.integers(1, 4, len(identities)))

    return side(2, 0, 0), side(gallery, 5, 9)


def by_hand(query: Features, gallery: Features) -> tuple[list[float], list[tuple[float, int, int]]]:
    """Distances of the pairs of one person, and of others with both identities, pair by pair."""
    same, other = [], []
    for q, i, a in zip(query.values.astype(float), query.identities, query.cameras, strict=True):
        for g, j, b in zip(gallery.values.astype(float), gallery.identities, gallery.cameras, strict=True):
            distance = math.sqrt(((q / np.linalg.norm(q) - g / np.linalg.norm(g)) ** 2).sum())
            if i == j and a != b:
                same.append(distance)
            elif i != j and j != -1:
                other.append((distance, int(i), int(j)))
    return same, other


def one_dimension(same: np.ndarray, others: np.ndarray, galleries: int = 1) -> Pairs:
    """Pairs of given distances: each of one person is a unit; each of others has a unit of its own as its query, and
    one of a few as its gallery image. Of the pairs of these only the given ones are there.
    """
    m, n = len(same), len(others)
    units = m + n + galleries
    queries, given = np.zeros((1, units)), np.zeros((1, units))
    queries[0, m : m + n], given[0, m + n :] = 1, 1
    asked, found = m + np.arange(n), m + n + np.arange(n) % galleries
    order = np.argsort(others)
    return Pairs(
        cameras=np.array([1]),
        match_distances=np.sort(same),
        match_units=np.arange(m),
        match_cells=np.zeros(m, dtype=np.int64),
        near_distances=others[order],
        near_queries=asked[order],
        near_galleries=found[order],
        near_cells=np.zeros(n, dtype=np.int64),
        far_distances=others,
        far_queries=asked,
        far_galleries=found,
        limits=np.array([np.inf]),
        query_counts=queries,
        gallery_counts=given,
        identities=units,
    )


def test_by_hand() -> None:
    """Ten pairs of others at 1.0, 1.1, ..., 1.9, all queries of one unit and all galleries of another."""
    others = 1 + np.arange(10) / 10
    pairs = Pairs(
        cameras=np.array([1]),
        match_distances=np.array([0.2, 0.9, 1.15, 1.5]),
        match_units=np.array([0, 1, 0, 1]),
        match_cells=np.zeros(4, dtype=np.int64),
        near_distances=others,
        near_queries=np.zeros(10, dtype=np.int64),
        near_galleries=np.ones(10, dtype=np.int64),
        near_cells=np.zeros(10, dtype=np.int64),
        far_distances=others,
        far_queries=np.zeros(10, dtype=np.int64),
        far_galleries=np.ones(10, dtype=np.int64),
        limits=np.array([np.inf]),
        query_counts=np.array([[10.0, 0.0]]),
        gallery_counts=np.array([[0.0, 1.0]]),
        identities=2,
    )
    found = thresholds(pairs, [0.5, 0.2, 0.1, 0.05], replicates=1)
    # At most 5, 2, 1 and 0 of ten: just below the sixth, third, second and first.
    np.testing.assert_allclose([t.distance for t in found], [1.5, 1.2, 1.1, 1.0], rtol=1e-15)
    assert all(t.distance < edge for t, edge in zip(found, [1.5, 1.2, 1.1, 1.0], strict=True))
    assert [t.true_match_rate for t in found] == [0.75, 0.75, 0.5, 0.5]


def test_ties_are_not_accepted_beyond_the_rate() -> None:
    pairs = one_dimension(np.array([0.1, 0.6]), np.array([0.5] * 7 + [0.9] * 3))
    assert thresholds(pairs, [0.3], replicates=1)[0].distance == np.nextafter(0.5, 0)
    assert thresholds(pairs, [0.7], replicates=1)[0].distance == np.nextafter(0.9, 0)


def test_equal_features_of_different_people_allow_no_threshold() -> None:
    pairs = one_dimension(np.array([0.1, 0.6]), np.array([0.0] * 3 + [0.9] * 7))
    with pytest.raises(InputError, match=r"a share of 0\.1 of the pairs of different identities have equal features"):
        thresholds(pairs, [0.5, 0.1], replicates=1)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_plain_loop_and_verification(seed: int) -> None:
    query, gallery = random_features(seed)
    same, other = by_hand(query, gallery)
    pairs = collect_pairs(query, gallery, largest_rate=0.1)
    np.testing.assert_allclose(pairs.match_distances, np.sort(same), rtol=1e-6)
    np.testing.assert_allclose(pairs.near_distances, np.sort([d for d, _, _ in other]), rtol=1e-6)
    assert pairs.num_negatives() == len(other)
    verified = verify(unit_rows(query), unit_rows(gallery))
    assert (verified.matches, verified.others) == (len(same), len(other))
    for found in thresholds(pairs, [0.1, 0.01, 0.002], replicates=1):
        false = sum(d <= found.distance - 1e-7 for d, _, _ in other)  # whose sums differ in their last digits
        assert false == math.floor(found.rate * len(other))
        assert found.true_match_rate == verified.at(found.rate)[0] == np.mean(np.array(same) <= found.distance)


def test_what_is_not_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = random_features(4, people=60, gallery=20)
    whole = calibrate(query, gallery, rates=[0.02, 0.01], replicates=40)
    monkeypatch.setattr(pairs_module, "MAX_KEPT_WHOLE", 0)
    cut = collect_pairs(query, gallery, largest_rate=0.02)
    assert len(cut.near_distances) < 0.2 * cut.num_negatives()
    found = calibrate(query, gallery, rates=[0.02, 0.01], replicates=40)
    assert found.thresholds == whole.thresholds and found.camera_pairs == whole.camera_pairs


def test_bootstrap_weights_people_and_not_pairs() -> None:
    """Replicates written out: each draw of people as a list with repetitions, every pair of two of them counted."""
    query, gallery = random_features(7, people=12)
    people = np.unique(gallery.identities[gallery.identities > 0])
    same_by, other_by = {}, {}
    for i in people:
        own = np.flatnonzero(query.identities == i)
        mine = Features(query.values[own], query.identities[own], query.cameras[own])
        same, other = by_hand(mine, gallery)
        same_by[i], other_by[i] = same, [(d, j) for d, _, j in other]
    pairs = collect_pairs(query, gallery, largest_rate=0.1)
    nobody = int((gallery.identities == 0).sum())
    assert pairs.num_units == len(people) + nobody
    replicates, seed, rate = 60, 3, 0.05
    found = thresholds(pairs, [rate], replicates=replicates, seed=seed)[0]
    random, edges, shares = np.random.default_rng(seed), [], []
    order = np.flatnonzero(gallery.identities == 0)
    for _ in range(replicates):
        weights = random.multinomial(pairs.num_units, np.full(pairs.num_units, 1 / pairs.num_units))
        drawn_people = [i for i, w in zip(people, weights, strict=False) for _ in range(w)]
        others, same = [], []
        for i in drawn_people:
            same += same_by[i]
            for j in drawn_people:
                others += [d for d, k in other_by[i] if k == j != i]
            unknown = [d for d, k in other_by[i] if k == 0]
            each = len(order)
            for start in range(0, len(unknown), each):  # of one query, in the gallery's order
                for d, w in zip(unknown[start : start + each], weights[len(people) :], strict=True):
                    others += [d] * w
        others.sort()
        edge = others[math.floor(rate * len(others) + 1e-6)]
        edges.append(edge)
        shares.append(np.mean(np.array(same) < edge - 1e-9))
    np.testing.assert_allclose([found.low, found.high], np.percentile(edges, [2.5, 97.5]), rtol=1e-6)
    expected = np.percentile(shares, [2.5, 97.5])
    np.testing.assert_allclose([found.true_match_low, found.true_match_high], expected, rtol=1e-6)


def test_interval_of_independent_matches_is_that_of_scipy() -> None:
    """Where each pair of one person is a person of its own, and others are far away, the share is a plain mean."""
    random = np.random.default_rng(0)
    same, others = random.random(400), np.full(40, 0.7)
    found = thresholds(one_dimension(same, others), [0.5], replicates=4000)[0]
    accepted = (same < 0.7).astype(float)
    expected = stats.bootstrap((accepted,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    np.testing.assert_allclose([found.true_match_low, found.true_match_high], expected, atol=0.01)


@pytest.mark.parametrize("rate", [1e-1, 1e-2])
def test_gaussian_distances_give_the_true_threshold(rate: float) -> None:
    """Of others N(1.2, 0.15), of one person N(0.7, 0.1): the true threshold lies in the interval, and near."""
    inside = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        pairs = one_dimension(random.normal(0.7, 0.1, 2000), random.normal(1.2, 0.15, 4000))
        found = thresholds(pairs, [rate], replicates=100, seed=seed)[0]
        true = stats.norm.ppf(rate, 1.2, 0.15)
        assert found.distance == pytest.approx(true, abs=0.03)
        assert found.true_match_rate == pytest.approx(stats.norm.cdf(true, 0.7, 0.1), abs=0.15)
        inside += found.low <= true <= found.high
    assert inside >= 16  # 19 are expected; fewer than 16 come by chance once in 400


def test_wider_where_images_share_people() -> None:
    """The same number of pairs, from fewer people, says less: the interval is wider."""
    few, many = (random_features(1, people=n, gallery=240 // n) for n in (8, 120))
    widths = [
        (lambda t: t.high - t.low)(thresholds(collect_pairs(*side, largest_rate=0.1), [0.1], replicates=100)[0])
        for side in (few, many)
    ]
    assert widths[0] > 2 * widths[1]


def test_by_camera_pair() -> None:
    query, gallery = random_features(2, people=40)
    found = camera_pair_thresholds(collect_pairs(query, gallery, largest_rate=0.05), [0.05], replicates=1)
    assert [(pair.first, pair.second) for pair in found] == [(1, 2), (1, 3), (2, 3)]
    for pair in found:
        same, other = [], 0
        distances = []
        for a, b in ((pair.first, pair.second), (pair.second, pair.first)):
            asked, given = query.cameras == a, gallery.cameras == b
            part = by_hand(
                Features(query.values[asked], query.identities[asked], query.cameras[asked]),
                Features(gallery.values[given], gallery.identities[given], gallery.cameras[given]),
            )
            same += part[0]
            distances += [d for d, _, _ in part[1]]
        other = len(distances)
        assert (pair.matches, pair.others) == (len(same), other)
        edge = np.sort(distances)[math.floor(0.05 * other)]
        assert pair.thresholds[0].distance == pytest.approx(edge, rel=1e-6)
        assert pair.thresholds[0].true_match_rate == np.mean(np.array(same) < edge - 1e-9)


def test_rates_that_the_data_cannot_support_are_refused() -> None:
    query, gallery = random_features(3)
    found = calibrate(query, gallery, replicates=5)
    assert found.others == 10_980 and [t.rate for t in found.thresholds] == [0.01] and found.refused == (1e-3, 1e-4)
    # At least 30 false matches: 30.7 and 29.6.
    assert calibrate(query, gallery, rates=[0.0028, 0.0027], replicates=5).refused == (0.0027,)
    with pytest.raises(InputError, match=r"10,980 pairs .* would be 1\.1 false matches, and at least 30"):
        calibrate(query, gallery, rates=[1e-4])


def test_bad_input() -> None:
    query, gallery = random_features(0)
    one = gallery.identities == 1
    alone = Features(gallery.values[one], gallery.identities[one], gallery.cameras[one])
    with pytest.raises(InputError, match="all 12 images are of identity 1: without pairs of different identities"):
        calibrate(alone, alone)
    still = [Features(side.values, side.identities, np.full(len(side.cameras), 2)) for side in (query, gallery)]
    with pytest.raises(InputError, match="all images are of camera 2, but matches only count across cameras"):
        calibrate(*still)
    # Different people on either side alone.
    split = Features(query.values[:2], np.array([1, 2]), np.array([1, 1]))
    other = Features(query.values[:2], np.array([3, 4]), np.array([2, 2]))
    with pytest.raises(InputError, match=r"appears in the gallery|match"):
        calibrate(split, other)
    for options, message in (
        ({"rates": [0.0]}, "between 0 and 1"),
        ({"rates": []}, "an empty list"),
        ({"prior": 1.0}, "a prior is a share"),
        ({"replicates": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate(query, gallery, **options)  # type: ignore[arg-type]
