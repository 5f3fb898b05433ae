from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reid.evaluation.retrieval import choose, score, warn_of_equal_rows
from reid.ranking import evaluate
from reid.records import Features


def features(values: np.ndarray, cameras: int) -> Features:
    return Features(values.astype(np.float32), np.arange(len(values)) % 4 + 1, np.full(len(values), cameras))


def test_raw_and_unit_scores_are_distinguished() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 3))
    query, gallery = (
        features((centres[np.arange(n) % 4] + random.normal(size=(n, 3))) * random.uniform(0.1, 9, size=(n, 1)), camera)
        for n, camera in ((8, 1), (40, 2))
    )
    scores = score({("input", True): (query, gallery)})
    assert [(s.feature, s.normalized, s.flip) for s in scores] == [("input", False, True), ("input", True, True)]
    raw, unit = (choose(scores, feature="input", normalized=n, flip=True) for n in (False, True))
    assert raw.mAP == evaluate(query, gallery).mAP
    assert unit.mAP == pytest.approx(evaluate(query, gallery, metric="cosine").mAP, abs=1e-6)
    assert raw.mAP != unit.mAP


def test_rows_of_length_1_are_not_rounded_to_half_precision() -> None:
    random = np.random.default_rng(1)
    query, gallery = (features(random.normal(size=(n, 16)), camera) for n, camera in ((40, 1), (400, 2)))
    query, gallery = (dataclasses.replace(side, values=side.values.astype(np.float16)) for side in (query, gallery))
    unit = choose(score({("input", False): (query, gallery)}), feature="input", normalized=True, flip=False)
    assert unit.mAP == evaluate(query, gallery, metric="cosine").mAP


def test_a_row_of_zeros_is_a_warning_and_no_end() -> None:
    values = np.eye(4)
    values[2] = 0
    with pytest.warns(UserWarning, match="1 of 4 feature rows are zero"):
        scores = score({("input", False): (features(values, 1), features(np.eye(4), 2))})
    assert scores[1].rank1 >= 0.75


def test_queries_with_the_features_of_a_match_are_questioned(caplog: pytest.LogCaptureFixture) -> None:
    values = np.arange(12.0).reshape(4, 3)
    query = Features(values, [1, 2, 3, 4], [1, 1, 1, 1])
    # Equal rows: a match; its own camera; another identity.
    gallery = Features(values + np.array([[0], [0], [0], [1]]), [1, 2, 9, 4], [2, 1, 2, 2])
    warn_of_equal_rows(query, gallery)
    assert "1 of 4 queries have the same features as a match" in caplog.text
    caplog.clear()
    warn_of_equal_rows(query, Features(values + 1, [1, 2, 3, 4], [2, 2, 2, 2]))
    assert not caplog.records
