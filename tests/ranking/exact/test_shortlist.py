from __future__ import annotations

import numpy as np
import pytest

from reid.ranking.exact.shortlist import Shortlist


def added(scores: np.ndarray, k: int, capacity: int, half_width: float, seed: int = 0) -> Shortlist:
    """All scores (N, M), each somewhere within `half_width` of the truth, added column by column in random order."""
    rng = np.random.default_rng(seed)
    kept = Shortlist.empty(len(scores), k, capacity)
    for columns in np.array_split(rng.permutation(scores.shape[1]), 5):
        rows, indices = (part.ravel() for part in np.meshgrid(np.arange(len(scores)), columns, indexing="ij"))
        shuffled = rng.permutation(len(rows))
        rows, indices = rows[shuffled], indices[shuffled]
        seen = scores[rows, indices] + half_width * rng.uniform(-1, 1, len(rows))
        possible = seen - half_width <= kept.cutoff[rows]
        kept.add(rows[possible], indices[possible], seen[possible] - half_width, half_width)
    kept.finalize()
    return kept


@pytest.mark.parametrize("half_width", [0.0, 0.01, 0.05])
@pytest.mark.parametrize(("k", "capacity"), [(1, 16), (5, 30), (5, 100)])
def test_the_smallest_scores_are_never_lost(half_width: float, k: int, capacity: int) -> None:
    scores = np.random.default_rng(1).normal(size=(40, 100))
    kept = added(scores, k, capacity, half_width)
    last = np.sort(scores, axis=1)[:, k - 1]
    rows, indices = kept.pairs()
    assert (np.diff(rows) >= 0).all()
    for row in np.flatnonzero(~kept.overflowed):
        listed = set(indices[rows == row].tolist())
        needed = np.flatnonzero(scores[row] <= last[row])
        assert listed.issuperset(needed.tolist()) and len(listed) == (rows == row).sum() <= capacity
        assert last[row] <= kept.cutoff[row] <= last[row] + 4 * half_width + 1e-5
        # And little beside them.
        assert len(listed) <= (scores[row] <= last[row] + 6 * half_width + 1e-5).sum()
    if half_width < 0.05:
        assert not kept.overflowed.any()


def test_rows_with_too_many_ties_are_marked() -> None:
    scores = np.random.default_rng(2).normal(size=(6, 100))
    scores[[1, 4]] = 0.5
    kept = added(scores, 3, 20, 0.0)
    assert np.flatnonzero(kept.overflowed).tolist() == [1, 4] and kept.size[[1, 4]].tolist() == [0, 0]


def test_fewer_scores_than_k_are_all_kept() -> None:
    kept = added(np.arange(12.0).reshape(2, 6), 8, 9, 0.5)
    assert kept.size.tolist() == [6, 6] and np.isinf(kept.cutoff).all()
