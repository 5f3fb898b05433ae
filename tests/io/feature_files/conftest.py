"""One small set of features, written by the tests in every layout that is read."""

from __future__ import annotations

import numpy as np
import pytest

from reid.records import Features


@pytest.fixture
def sides() -> tuple[Features, Features]:
    """5 queries and 12 gallery images of 4 dimensions, distractors and junk among them."""
    random = np.random.default_rng(0)
    query = Features(
        random.normal(size=(5, 4)).astype(np.float32), np.arange(1, 6), np.array([1, 2, 1, 3, 1]), tuple("abcde")
    )
    gallery = Features(
        random.normal(size=(12, 4)).astype(np.float32),
        np.array([-1, 0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5]),
        np.arange(12) % 3 + 1,
    )
    return query, gallery
