"""Whitening against its definition and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from reid.errors import InputError
from reid.evaluation.whitening import WhiteningOptions, learned_whitening, matching_pairs, pca_whitening, whiten_rows
from reid.records import Features

DIM = 5


def drawn(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of identities seen by three cameras, with dependent dimensions: (N, 5), (N,), (N,)."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(count // 3), 3)
    people, mix = rng.standard_normal((count // 3, DIM)), rng.standard_normal((DIM, DIM))
    values = (people[identities] + 0.3 * rng.standard_normal((count, DIM))) @ mix + 4
    return values.astype(np.float32), identities, np.tile([1, 2, 3], count // 3)


def test_pca_whitening_against_scikit_learn() -> None:
    features, _, _ = drawn()
    other = PCA(3, whiten=True).fit(features.astype(np.float64))
    expected = other.transform(features) * np.sqrt(len(features) / (len(features) - 1))  # it divides by N - 1
    whitening = pca_whitening(features, dim=3)
    found = (features - whitening.mean) @ whitening.projection.T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(3), atol=1e-10)


def test_rows_get_unit_length() -> None:
    features, _, _ = drawn()
    white = pca_whitening(features).apply(features)
    np.testing.assert_allclose(np.linalg.norm(white, axis=1), 1, rtol=1e-12)
    at_the_mean = pca_whitening(features).apply(features.astype(np.float64).mean(0, keepdims=True))
    assert np.isfinite(at_the_mean).all()


def test_learned_whitening_by_its_definition() -> None:
    features, identities, cameras = drawn()
    pairs = matching_pairs(identities, cameras, count=10**6, seed=0)
    whitening = learned_whitening(features, pairs)
    values = features.astype(np.float64)
    scatter = np.zeros((DIM, DIM))
    for i, j in pairs:
        d = values[i] - values[j]
        scatter += np.outer(d, d) / len(pairs)
    # What differs within an identity becomes white, and what all of them have is along the axes, descending.
    projection = whitening.projection
    np.testing.assert_allclose(projection @ scatter @ projection.T, np.eye(DIM), atol=1e-8)
    white = (features - whitening.mean) @ whitening.projection.T
    covariance = white.T @ white
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6 * covariance.max())
    assert (np.diff(np.diag(covariance)) < 0).all()
    np.testing.assert_allclose(whitening.mean, values.mean(0), rtol=1e-12)
    # Rotation aside it is the inverse of the Cholesky factor.
    lower = np.linalg.cholesky(scatter)
    rotation = projection @ lower
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(DIM), atol=1e-8)
    kept = learned_whitening(features, pairs, dim=2)
    np.testing.assert_allclose(kept.projection, projection[:2], rtol=1e-12)


def test_learned_whitening_brings_an_identity_together() -> None:
    features, identities, cameras = drawn(300)
    half = 150
    pairs = matching_pairs(identities[:half], cameras[:half], count=10**6, seed=0)
    whitening = learned_whitening(features[:half], pairs)

    def rank_1(values: np.ndarray) -> float:
        similar = values @ values.T - 2 * np.eye(len(values))
        return float((identities[half:][similar.argmax(1)] == identities[half:]).mean())

    unit = features[half:] / np.linalg.norm(features[half:], axis=1, keepdims=True)
    assert rank_1(whitening.apply(features[half:])) > rank_1(unit) + 0.05


def test_matching_pairs_by_loops() -> None:
    identities, cameras = np.array([3, 1, 3, 3, 1, 2]), np.array([1, 1, 2, 1, 2, 1])
    expected = {
        (i, j) for i in range(6) for j in range(i + 1, 6) if identities[i] == identities[j] and cameras[i] != cameras[j]
    }
    pairs = matching_pairs(identities, cameras, count=100, seed=0)
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)
    few = [matching_pairs(identities, cameras, count=2, seed=seed) for seed in (1, 1)]
    assert len(few[0]) == 2 and np.array_equal(*few)
    assert {tuple(sorted(pair)) for pair in few[0].tolist()} < expected
    # Of 10^8 pairs no list is made.
    many = matching_pairs(np.ones(20_000, int), np.arange(20_000) % 2, count=1000, seed=0)
    assert len({tuple(sorted(pair)) for pair in many.tolist()}) == 1000 and (many.sum(axis=1) % 2 == 1).all()


def test_what_cannot_be_whitened() -> None:
    features, identities, cameras = drawn()
    flat = features.copy()
    flat[:, 4] = flat[:, 3]
    pairs = matching_pairs(identities, cameras, count=10**6, seed=0)
    with pytest.raises(InputError, match="vary in only 4 directions"):
        pca_whitening(flat)
    assert pca_whitening(flat, dim=4).projection.shape == (4, DIM)
    with pytest.raises(InputError, match="3 matching pairs differ in only 2 of 5 dimensions"):
        learned_whitening(features, pairs[:3])
    assert np.isfinite(learned_whitening(features, pairs[:3], ridge=1e-3).projection).all()
    with pytest.raises(InputError, match=r"dim 6: must be in \[1, 5\]"):
        pca_whitening(features, dim=6)
    with pytest.raises(InputError, match="below 60"):
        learned_whitening(features, np.array([[0, 60]]))
    with pytest.raises(InputError, match="5 dimensions cannot be applied to features of shape"):
        pca_whitening(features).apply(features[:, :3])
    with pytest.raises(InputError, match="NaN"):
        pca_whitening(np.full((3, 2), np.nan))
    for no_pair in (identities[:0], np.arange(4)):
        with pytest.raises(InputError, match="no matching pair"):
            matching_pairs(no_pair, np.ones(len(no_pair), dtype=int), count=5, seed=0)


def test_a_whitening_of_features_is_that_of_unit_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid.evaluation.whitening._BLOCK", 7)  # several blocks, of pairs and of rows
    values, identities, cameras = drawn()
    values = values * np.random.default_rng(1).uniform(0.1, 9, (len(values), 1)).astype(np.float32)
    unit = values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    pairs = matching_pairs(identities, cameras, count=10**6, seed=0)
    # Junk and distractors share a label and are nobody: no pair of theirs counts.
    identities = np.where(identities == 0, -1, identities)
    identities = np.where(identities == 1, 0, identities)
    people = pairs[(identities[pairs] > 0).all(axis=1)]
    training = Features(values, identities, cameras)
    for how, other in (("pca", pca_whitening(unit, dim=3)), ("learned", learned_whitening(unit, people, dim=3))):
        whiten = WhiteningOptions(how, dim=3)
        whitening = whiten.fit(training)
        np.testing.assert_allclose(whitening.projection, other.projection, rtol=1e-9)
        found = whiten_rows(whitening, values)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, other.apply(unit), atol=1e-6)
        described = {"whitening": how, "ridge": 0.0, "dimensions": 3, "training_images": 60}
        assert whiten.describe(whitening, training) == described


def test_one_camera_makes_pairs_of_any_two_images() -> None:
    values, identities, _ = drawn()
    identities = identities + 1
    whitening = WhiteningOptions("learned").fit(Features(values, identities, np.ones(len(values), dtype=np.int64)))
    unit = values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    pairs = np.array([(i, j) for i in range(60) for j in range(i + 1, 60) if identities[i] == identities[j]])
    np.testing.assert_allclose(whitening.projection, learned_whitening(unit, pairs).projection, rtol=1e-9)


def test_a_whitening_that_cannot_be() -> None:
    values, identities, cameras = drawn()
    with pytest.raises(InputError, match="unknown whitening 'pcs'; did you mean pca"):
        WhiteningOptions("pcs")
    with pytest.raises(InputError, match=r"ridge -1: .*0 or more"):
        WhiteningOptions("learned", ridge=-1)
    training = Features(values[:4], identities[:4], cameras[:4])
    with pytest.raises(InputError, match="the 4 features vary in only 3 directions"):
        WhiteningOptions("pca").fit(training)
    with pytest.raises(InputError, match=r"dim 6: must be in \[1, 5\], or 0 for all"):
        WhiteningOptions("pca", dim=6).fit(training)
    with pytest.raises(InputError, match="no matching pair"):
        WhiteningOptions("learned").fit(Features(values, np.zeros(60, dtype=np.int64), cameras))
