"""Geometry of features, against loops over pairs and cases worked out by hand."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from reid.diagnostics import geometry
from reid.diagnostics.geometry import (
    alignment,
    describe_geometry,
    neural_collapse,
    participation_ratio,
    participation_ratio_by_chance,
    rank_me,
    rank_me_by_chance,
    uniformity,
    uniformity_by_chance,
    variance_shares,
)
from reid.records import Features

RANDOM = np.random.default_rng(5)
VALUES = (RANDOM.normal(size=(40, 6)) * np.geomspace(1, 9, 6) + 2).astype(np.float32)
LABELS = np.arange(40) % 7 + 1
CAMERAS = np.arange(40) % 3 + 1


def test_ranks() -> None:
    singular = np.linalg.svd(VALUES.astype(np.float64), compute_uv=False)
    share = singular / singular.sum()
    assert rank_me(VALUES) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)), rel=1e-6)
    variances = np.linalg.eigvalsh(np.cov(VALUES.astype(np.float64), rowvar=False))
    assert participation_ratio(VALUES) == pytest.approx(variances.sum() ** 2 / (variances**2).sum())
    assert rank_me(np.eye(5)) == pytest.approx(5) and rank_me(np.ones((9, 4))) == pytest.approx(1)
    assert participation_ratio(np.concatenate([np.eye(5), -np.eye(5)])) == pytest.approx(5)


def test_alignment_and_uniformity_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = VALUES.astype(np.float64) / np.linalg.norm(VALUES.astype(np.float64), axis=1, keepdims=True)
    pairs = [(i, j, ((rows[i] - rows[j]) ** 2).sum()) for i, j in itertools.combinations(range(40), 2)]
    same = [distance for i, j, distance in pairs if LABELS[i] == LABELS[j]]
    assert alignment(VALUES, LABELS) == pytest.approx(np.mean(same), rel=1e-9)
    assert uniformity(VALUES) == pytest.approx(math.log(np.mean([math.exp(-2 * d) for *_, d in pairs])), rel=1e-9)
    assert alignment(VALUES, np.arange(40)) is None
    monkeypatch.setattr(geometry, "MAX_ROWS", 30)
    assert uniformity(VALUES, seed=1) == uniformity(VALUES, seed=1) != uniformity(VALUES, seed=2)
    for dimensions in (3, 64):
        points = np.random.default_rng(0).normal(size=(3000, dimensions))
        monkeypatch.setattr(geometry, "MAX_ROWS", 3000)
        assert uniformity(points) == pytest.approx(uniformity_by_chance(dimensions), abs=0.01)


def test_neural_collapse_is_zero_at_a_simplex() -> None:
    labels = np.repeat(np.arange(4), 5)
    simplex = np.eye(4) - 0.25
    collapsed = neural_collapse(3 * simplex[labels] + 7, labels, 2 * simplex, np.zeros(4))
    assert collapsed == pytest.approx({key: 0.0 for key in collapsed}, abs=1e-9)
    # A classifier of the opposite vectors is as far as can be, and always takes another class.
    opposite = neural_collapse(3 * simplex[labels] + 7, labels, -simplex)
    assert (opposite["nc3"], opposite["nc4"]) == pytest.approx((4.0, 1.0))


def test_neural_collapse_by_its_definitions() -> None:
    labels = LABELS - 1
    weight, bias = RANDOM.normal(size=(7, 6)), RANDOM.normal(size=7)
    found = neural_collapse(VALUES, labels, weight, bias)
    rows = VALUES.astype(np.float64)
    means = np.array([rows[labels == c].mean(axis=0) for c in range(7)])
    centered = means - means.mean(axis=0)
    within = sum(np.outer(x - means[c], x - means[c]) for x, c in zip(rows, labels, strict=True)) / 40
    between = sum(np.outer(m, m) for m in centered) / 7
    assert found["nc1"] == pytest.approx(np.trace(within @ np.linalg.pinv(between)) / 7, rel=1e-6)
    lengths = np.linalg.norm(centered, axis=1)
    assert found["nc2_norms"] == pytest.approx(lengths.std() / lengths.mean())
    cosines = [centered[i] @ centered[j] / lengths[i] / lengths[j] for i, j in itertools.combinations(range(7), 2)]
    assert found["nc2_angles"] == pytest.approx(np.mean([abs(c + 1 / 6) for c in cosines]))
    difference = weight / np.linalg.norm(weight) - centered / np.linalg.norm(centered)
    assert found["nc3"] == pytest.approx(np.linalg.norm(difference) ** 2)
    nearest = [int(np.argmin(((means - x) ** 2).sum(axis=1))) for x in rows]
    assert found["nc4"] == pytest.approx(np.mean(np.argmax(rows @ weight.T + bias, axis=1) != nearest))
    assert set(neural_collapse(VALUES, np.zeros(40, dtype=int)).values()) == {None}
    assert neural_collapse(VALUES, LABELS, weight)["nc3"] is None  # not the rows of the classifier


def test_variance_is_identity_or_camera() -> None:
    identities, cameras = np.repeat(np.arange(1, 6), 8), np.tile(np.arange(1, 5), 10)
    people, places = RANDOM.normal(size=(6, 3)), RANDOM.normal(size=(5, 3))
    only = variance_shares(people[identities], identities, cameras)
    assert (only["identity"], only["camera"], only["rest"]) == pytest.approx((1, 0, 0), abs=1e-9)
    only = variance_shares(places[cameras], identities, cameras)
    assert (only["identity"], only["camera"], only["camera_within_identity"]) == pytest.approx((0, 1, 1), abs=1e-9)
    noise = variance_shares(RANDOM.normal(size=(40, 500)), identities, cameras)
    assert noise["identity"] == pytest.approx(noise["identity_by_chance"], rel=0.1)
    assert noise["camera"] == pytest.approx(noise["camera_by_chance"], rel=0.1)
    assert noise["identity"] + noise["camera_within_identity"] + noise["rest"] == pytest.approx(1)


def test_each_camera_has_its_own_numbers() -> None:
    labels = LABELS.copy()
    labels[:3] = [-1, 0, 0]
    found = describe_geometry(Features(VALUES, labels, CAMERAS))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["images"] == 37 and [entry["camera"] for entry in found["cameras"]] == [1, 2, 3]
    own = (CAMERAS == 2) & (labels > 0)
    assert found["cameras"][1]["rank_me"] == rank_me(VALUES[own])
    assert found["cameras"][1]["nc1"] == neural_collapse(VALUES[own], labels[own])["nc1"]
    assert found["alignment_by_chance"] == alignment(VALUES[3:], np.zeros(37, dtype=int))
    assert "cameras" not in describe_geometry(Features(VALUES, LABELS, np.ones(40, dtype=int)))


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e90, 1e100])
def test_the_scale_changes_nothing(scale: float) -> None:
    values, labels, classifier = VALUES.astype(np.float64), LABELS - 1, RANDOM.normal(size=(7, 6))
    features = [Features(rows, labels, CAMERAS) for rows in (values, values * scale)]
    numbers = [describe_geometry(one, classifier=classifier) for one in features]
    for own, other in zip(*([one, one["variance"], *one["cameras"]] for one in numbers), strict=True):
        known = {key: value for key, value in own.items() if isinstance(value, int | float)}
        assert {key: other[key] for key in known} == pytest.approx(known, rel=1e-9)
    found = neural_collapse(values, labels, classifier * scale)
    assert found == pytest.approx(neural_collapse(values, labels, classifier), rel=1e-9)
    # A row far shorter than the others has a direction, too.
    short = np.concatenate([values, values[:1] * 1e-200])
    assert uniformity(short) == pytest.approx(uniformity(np.concatenate([values, values[:1]])), rel=1e-9)


def test_what_has_no_direction_is_none() -> None:
    labels = LABELS - 1
    zero = neural_collapse(VALUES, labels, np.zeros((7, 6)))
    assert zero["nc3"] is None and zero["nc1"] is not None
    assert neural_collapse(VALUES, labels, np.full((7, 6), np.nan))["nc3"] is None
    # The rows of every class are the same seven, whose mean is rounded in another order; far from the origin.
    rows = RANDOM.normal(size=(7, 6)) + 1e3
    values = np.concatenate([RANDOM.permutation(rows) for _ in range(5)])
    found = neural_collapse(values, np.repeat(np.arange(5), 7), RANDOM.normal(size=(5, 6)))
    assert set(found.values()) == {None}


def test_means_far_closer_than_the_rows_of_a_class() -> None:
    """The means span C - 1 dimensions, which rounding errors of their sums must not raise to C."""
    simplex, labels = np.eye(4) - 0.25, np.repeat(np.arange(4), 50)
    rows = np.tile(np.random.default_rng(0).normal(size=(50, 4)), (4, 1))
    within = np.trace(np.cov(rows.T, bias=True) @ (np.eye(4) - 0.25))
    found = neural_collapse(rows + 1e-7 * simplex[labels], labels)
    assert found["nc1"] == pytest.approx(within / (1e-14 / 4) / 4, rel=1e-6)


@pytest.mark.parametrize("shape", [(400, 12), (60, 60), (30, 200), (5, 1)])
def test_ranks_by_chance_are_those_of_gaussian_features(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    drawn = [random.normal(size=shape) for _ in range(20)]
    assert rank_me_by_chance(*shape) == pytest.approx(np.mean([rank_me(rows) for rows in drawn]), rel=0.01)
    simulated = np.mean([participation_ratio(rows) for rows in drawn])
    assert participation_ratio_by_chance(*shape) == pytest.approx(simulated, rel=0.01)


def test_collapse_by_chance_is_that_of_meaningless_identities() -> None:
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(1, 9), 50))
    noise = random.normal(size=(400, 12))
    cameras = np.ones(400, dtype=np.int64)
    without = describe_geometry(Features(noise, labels, cameras))
    planted = describe_geometry(Features(noise + 5 * random.normal(size=(9, 12))[labels], labels, cameras))
    for key in ("nc1", "nc2_norms", "nc2_angles"):
        assert without[key] == pytest.approx(without[f"{key}_by_chance"], rel=0.5), key
    assert planted["nc1"] < 0.05 * planted["nc1_by_chance"]
    again = describe_geometry(Features(noise, labels, cameras), seed=1)
    assert again["nc1"] == without["nc1"] and again["nc1_by_chance"] != without["nc1_by_chance"]
    assert describe_geometry(Features(noise, cameras, cameras))["nc1_by_chance"] is None
