from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.errors import InputError
from reid.ranking import Ranking


def ranking(*hits: list[int], gallery: int) -> Ranking:
    """Of the ranks of each query's true matches."""
    ranks = np.array([rank for query in hits for rank in query], dtype=np.int64)
    return Ranking(ranks, np.cumsum([0, *map(len, hits)]), gallery)


def walked(relevant: list[bool]) -> tuple[float, float, float]:
    """Rectangle AP, trapezoid AP and INP of one ranked list, walking it rank by rank."""
    found, rectangle, trapezoid, last = 0, 0.0, 0.0, 0
    recall, precision = 0.0, 1.0
    for n, hit in enumerate(relevant, 1):
        found += hit
        new_recall, new_precision = found / sum(relevant), found / n
        trapezoid += (new_recall - recall) * (precision + new_precision) / 2
        if hit:
            rectangle += new_precision
            last = n
        recall, precision = new_recall, new_precision
    return rectangle / found, trapezoid, found / last


def test_by_hand() -> None:
    # Query 0, hits at 1, 3, 6:
    #   rectangle (1/1 + 2/3 + 3/6) / 3 = 13/18; INP 3/6
    #   trapezoid: precisions 1, 1/2, 2/3, 1/2, 2/5, 1/2 after P_0 = 1:
    #   ((1 + 1)/2 + (1/2 + 2/3)/2 + (2/5 + 1/2)/2) / 3 = (1 + 7/12 + 9/20) / 3 = 61/90
    # Query 1, hit at 2: rectangle 1/2, INP 1/2, trapezoid (0 + 1/2)/2 = 1/4
    # Query 2, nothing to find: out of all means but the trapezoid's
    result = ranking([1, 3, 6], [2], [], gallery=7)
    np.testing.assert_allclose(result.average_precision, [13 / 18, 1 / 2, np.nan])
    np.testing.assert_allclose(result.average_precision_trapezoid, [61 / 90, 1 / 4, 0])
    np.testing.assert_allclose(result.inverse_negative_penalty, [1 / 2, 1 / 2, np.nan])
    assert result.first_hit.tolist() == [1, 2, 0]
    assert result.matches.tolist() == [3, 1, 0] and result.valid.tolist() == [True, True, False]
    assert result.cmc(4).tolist() == [0.5, 1, 1, 1] and len(result.cmc(50)) == 7
    assert result.hits(0).tolist() == [1, 3, 6] and result.hits(2).tolist() == []

    scores = result.scores(max_rank=2)
    assert scores.mAP == pytest.approx((13 / 18 + 1 / 2) / 2)
    assert scores.mAP_trapezoid == pytest.approx((61 / 90 + 1 / 4) / 3)
    assert scores.mINP == pytest.approx(1 / 2)
    assert (scores.rank1, scores.rank5, scores.rank10) == (0.5, 1, 1)  # whatever the length of the curve
    assert scores.cmc == (0.5, 1) and (scores.queries, scores.dropped_queries) == (2, 1)


def test_a_query_without_matches_may_stand_anywhere() -> None:
    result = ranking([], [4], [], [], [1, 2], [], gallery=5)
    assert result.first_hit.tolist() == [0, 4, 0, 0, 1, 0]
    np.testing.assert_allclose(result.average_precision, [np.nan, 1 / 4, np.nan, np.nan, 1, np.nan])
    np.testing.assert_allclose(result.inverse_negative_penalty, [np.nan, 1 / 4, np.nan, np.nan, 1, np.nan])


def test_perfect_and_worst_lists() -> None:
    perfect = ranking([1, 2, 3], gallery=10).scores()
    assert (perfect.rank1, perfect.mAP, perfect.mAP_trapezoid, perfect.mINP) == (1, 1, 1, 1)
    worst = ranking([10], gallery=10).scores()
    assert (worst.rank1, worst.rank5, worst.rank10) == (0, 0, 1)
    assert worst.mAP == pytest.approx(1 / 10) and worst.mAP_trapezoid == pytest.approx(1 / 20)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), min_size=1, max_size=6))
def test_equals_a_walk_rank_by_rank(lists: list[list[bool]]) -> None:
    result = ranking(*([n for n, hit in enumerate(hits, 1) if hit] for hits in lists), gallery=30)
    rectangle, trapezoid, penalty = zip(*map(walked, lists), strict=True)
    np.testing.assert_allclose(result.average_precision, rectangle, rtol=1e-12)
    np.testing.assert_allclose(result.average_precision_trapezoid, trapezoid, rtol=1e-12)
    np.testing.assert_allclose(result.inverse_negative_penalty, penalty, rtol=1e-12)
    assert (result.average_precision_trapezoid <= result.average_precision + 1e-12).all()
    cmc = result.cmc(30)
    assert cmc.tolist() == [np.mean([any(hits[:k]) for hits in lists]) for k in range(1, 31)]


def test_nothing_to_find_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="0 of 2 queries"):
        ranking([], [], gallery=5).scores()


def test_the_curve_has_at_least_one_rank() -> None:
    with pytest.raises(InputError, match="max_rank 0: "):
        ranking([1], gallery=5).cmc(0)


@pytest.mark.parametrize("hits", [[[2, 1]], [[1, 1]], [[0]], [[6]], [[3], [4, 2]]])
def test_impossible_ranks_are_refused(hits: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        ranking(*hits, gallery=5)


def test_offsets_must_divide_the_ranks() -> None:
    with pytest.raises(ValueError, match="offsets"):
        Ranking(np.array([1, 2]), np.array([0, 1]), 5)
