"""Truncated SVD and PCA, compared with NumPy and scikit-learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from linear_layer import linear

from reid.diagnostics.compression import pca_rows, principal_components, ranks_up_to, truncated_rows
from reid.diagnostics.replacements import Head, output_scores, training_loss
from reid.errors import InputError
from reid.ranking import evaluate
from reid.records import Features

D_IN, K, CLASSES = 12, 10, 4


def features(rows: int, camera: int, seed: int) -> Features:
    random = np.random.default_rng(seed)
    identities = np.arange(rows) % CLASSES
    centres = np.random.default_rng(8).normal(size=(CLASSES, D_IN)) * np.linspace(2, 0.1, D_IN)
    values = centres[identities] + 5 + random.normal(size=(rows, D_IN))
    return Features(values.astype(np.float32), identities + 1, np.full(rows, camera))


QUERY, GALLERY = features(16, 1, 0), features(60, 2, 1)
TRAIN = dataclasses.replace(features(50, 3, 2), identities=np.arange(50) % CLASSES)


def head(*, bias: bool = False) -> Head:
    random = np.random.default_rng(5)
    weight = random.normal(size=(D_IN, K)) * np.geomspace(1, 30, K)
    classifier = linear(random.normal(size=(CLASSES, K)) / 20, random.normal(size=CLASSES))
    return Head(weight, random.normal(size=K) if bias else None, False, classifier)


def scored(query: np.ndarray, gallery: np.ndarray, metric: str = "euclidean") -> tuple[float, float]:
    pair = (dataclasses.replace(f, values=v.astype(np.float32)) for f, v in ((QUERY, query), (GALLERY, gallery)))
    found = evaluate(*pair, metric=metric)
    return found.rank1, found.mAP


def test_truncated_svd_from_its_two_factors() -> None:
    given = head()
    u, s, vt = np.linalg.svd(given.weight, full_matrices=False)
    # Not rank 1: there every L2-normalized output is 1 or -1, and ties decide.
    rows = truncated_rows(given, QUERY, GALLERY, TRAIN, ranks=[2, 3, 10], label_smoothing=0.1)
    for row in rows:
        r = row["rank"]
        thin, wide = u[:, :r] * s[:r], vt[:r]
        query, gallery = QUERY.values @ thin @ wide, GALLERY.values @ thin @ wide
        raw, unit = row["scores"]
        assert (raw["rank1"], raw["mAP"]) == pytest.approx(scored(query, gallery), abs=1e-12)
        assert (unit["rank1"], unit["mAP"]) == pytest.approx(scored(query, gallery, "cosine"), abs=1e-12)
        assert row["parameters"] == thin.size + wide.size
        assert row["dimensions"] == r
        assert row["energy"] == pytest.approx(1 - (np.linalg.norm(given.weight - thin @ wide) / np.linalg.norm(s)) ** 2)
        gram = np.abs((thin @ wide).T @ (thin @ wide))
        assert row["correlation"] == pytest.approx(gram.trace() / gram.sum())
        whole = dataclasses.replace(given, weight=thin @ wide)
        assert row["train_loss"] == pytest.approx(training_loss(whole, TRAIN, label_smoothing=0.1), rel=1e-6)
    assert rows[0]["scores"][0]["mAP"] != rows[1]["scores"][0]["mAP"]
    whole = output_scores(given, QUERY, GALLERY)
    assert [row["mAP"] for row in rows[2]["scores"]] == pytest.approx([row["mAP"] for row in whole], abs=1e-12)
    assert rows[2]["energy"] == pytest.approx(1.0)


def test_with_a_bias_truncation_stores_all_dimensions() -> None:
    given = head(bias=True)
    row = truncated_rows(given, QUERY, GALLERY, None, ranks=[2])[0]
    assert (row["dimensions"], row["train_loss"]) == (K, None)
    u, s, vt = np.linalg.svd(given.weight, full_matrices=False)
    query, gallery = (f.values @ (u[:, :2] * s[:2]) @ vt[:2] + given.bias for f in (QUERY, GALLERY))
    for entry, metric in zip(row["scores"], ("euclidean", "cosine"), strict=True):
        assert (entry["rank1"], entry["mAP"]) == pytest.approx(scored(query, gallery, metric), abs=1e-12)


def test_principal_components_are_scikit_learns() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    reference = decomposition.PCA(svd_solver="full").fit(TRAIN.values.astype(np.float64))
    mean, components, variances = principal_components(TRAIN.values)
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(variances, reference.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(np.abs((components * reference.components_.T).sum(axis=0)), 1.0, rtol=1e-9)
    assert (components[np.abs(components).argmax(axis=0), range(D_IN)] > 0).all()


def test_pca_rows_from_an_svd_of_the_training_features() -> None:
    train = TRAIN.values.astype(np.float64)
    mean = train.mean(axis=0)
    _, s, vt = np.linalg.svd(train - mean, full_matrices=False)
    rows = pca_rows(QUERY, GALLERY, TRAIN, ranks=[2, 4, 12])
    for row in rows:
        r = row["rank"]
        query, gallery = ((f.values - mean) @ vt[:r].T for f in (QUERY, GALLERY))
        raw, unit = row["scores"]
        assert raw["feature"] == "pca"
        assert (raw["rank1"], raw["mAP"]) == pytest.approx(scored(query, gallery), abs=1e-12)
        assert (unit["rank1"], unit["mAP"]) == pytest.approx(scored(query, gallery, "cosine"), abs=1e-12)
        assert (row["dimensions"], row["parameters"]) == (r, r * D_IN + D_IN)
        assert row["variance"] == pytest.approx((s[:r] ** 2).sum() / (s**2).sum())
    # Every component together is a turn about the mean, which moves no distance.
    whole = rows[-1]["scores"][0]
    assert (whole["rank1"], whole["mAP"]) == scored(QUERY.values, GALLERY.values)
    assert rows[0]["scores"][0]["mAP"] < whole["mAP"]


@pytest.mark.parametrize("rank", [0, 11])
def test_a_rank_that_is_none(rank: int) -> None:
    with pytest.raises(InputError, match=f"rank {rank} is outside 1 to 10"):
        truncated_rows(head(), QUERY, GALLERY, TRAIN, ranks=[rank])


def test_a_rank_that_no_projection_has() -> None:
    with pytest.raises(InputError, match="rank 13 is outside 1 to 12"):
        pca_rows(QUERY, GALLERY, TRAIN, ranks=[13])


def test_ranks() -> None:
    assert ranks_up_to(512) == [8, 16, 32, 64, 128, 256, 512]
    assert ranks_up_to(751) == [8, 16, 32, 64, 128, 256, 512, 751]
    assert ranks_up_to(6) == [1, 2, 4, 6]
