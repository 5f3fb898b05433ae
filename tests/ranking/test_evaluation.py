from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from exact_reference import features
from hypothesis import given, settings
from hypothesis import strategies as st
from traced import traced

from reid.errors import InputError
from reid.ranking import evaluate, matches_and_junk, rank_matches
from reid.ranking.protocols.single_shot import evaluate_single_shot
from reid.ranking.protocols.verification import verify
from reid.ranking.reranking.rerank import rerank_ranking
from reid.records import Features, Scores


class Reference(NamedTuple):
    ranks: list[list[int]]
    rectangle: float
    trapezoid: float
    penalty: float
    cmc: list[float]


def sorted_reference(query: Features, gallery: Features) -> Reference:
    """Squared distances in float64, a stable sort, the protocol applied to the sorted list; no code shared."""
    ranks, rectangle, trapezoid, penalty, curves = [], [], [], [], []
    for q, identity, camera in zip(query.values.astype(np.float64), query.identities, query.cameras, strict=True):
        order = np.argsort(((gallery.values.astype(np.float64) - q) ** 2).sum(axis=1), kind="stable")
        identities, cameras = gallery.identities[order], gallery.cameras[order]
        kept = (identities != -1) & ~((identities == identity) & (cameras == camera))
        hit = identities[kept] == identity
        ranks.append((np.flatnonzero(hit) + 1).tolist())
        if not hit.any():
            trapezoid.append(0.0)
            continue
        found = np.cumsum(hit)
        precision = found / np.arange(1, len(hit) + 1)
        before = np.concatenate([[1.0], precision[:-1]])
        rectangle.append(precision[hit].mean())
        trapezoid.append(((before + precision)[hit] / 2).mean())
        penalty.append(hit.sum() / (np.flatnonzero(hit)[-1] + 1))
        # Junk leaves the list shorter than the gallery; behind its end everything findable is found.
        curves.append(np.pad(found > 0, (0, len(kept) - len(found)), constant_values=True))
    if not curves:
        return Reference(ranks, 0.0, 0.0, 0.0, [])
    means = [float(np.mean(part)) for part in (rectangle, trapezoid, penalty)]
    return Reference(ranks, means[0], means[1], means[2], np.mean(curves, axis=0).tolist())


def assert_equals_reference(scores: Scores, expected: Reference) -> None:
    assert scores.mAP == pytest.approx(expected.rectangle, abs=1e-12)
    assert scores.mAP_trapezoid == pytest.approx(expected.trapezoid, abs=1e-12)
    assert scores.mINP == pytest.approx(expected.penalty, abs=1e-12)
    np.testing.assert_allclose(scores.cmc, expected.cmc[: len(scores.cmc)], atol=1e-12)
    for k, value in ((1, scores.rank1), (5, scores.rank5), (10, scores.rank10)):
        assert value == pytest.approx(expected.cmc[min(k, len(expected.cmc)) - 1], abs=1e-12)


def drawn(kind: str, seed: int, *, queries: int = 40, gallery: int = 300) -> tuple[Features, Features]:
    """Whole-number features, small enough that float32 distances are exact in any order of summation."""
    rng = np.random.default_rng(seed)
    identities = rng.integers(1, 13, queries), rng.integers(-1, 13, gallery)
    cameras = rng.integers(1, 4, queries), rng.integers(1, 4, gallery)
    if kind == "tied":
        values = [rng.integers(0, 3, (len(ids), 2)) for ids in identities]
    elif kind == "random":
        values = [rng.integers(-300, 301, (len(ids), 32)) for ids in identities]
    else:
        centres = rng.integers(-60, 61, (14, 16))
        values = [centres[ids] + rng.integers(-70, 71, (len(ids), 16)) for ids in identities]
    return features(values[0], identities[0], cameras[0]), features(values[1], identities[1], cameras[1])


def test_by_hand() -> None:
    # On a line, the query (identity 1, camera 1) at 0. Nearest first:
    #   0.5  identity -1           junk
    #   1    identity 1, camera 1  junk: the query's own camera
    #   2    identity 0            rank 1, a distractor: wrong
    #   3    identity 1, camera 2  rank 2, hit
    #   4    identity 2, camera 1  rank 3, wrong
    #   5    identity 1, camera 3  rank 4, hit
    #   6    identity 2, camera 2  rank 5, wrong
    # rectangle (1/2 + 2/4) / 2 = 1/2; INP 2/4; trapezoid ((0 + 1/2)/2 + (1/3 + 2/4)/2) / 2 = 1/3
    gallery = features([5, 0.5, 4, 3, 1, 2, 6], [1, -1, 2, 1, 1, 0, 2], [3, 2, 1, 2, 1, 2, 2])
    query = features([0], [1], [1])
    assert rank_matches(query, gallery).ranks.tolist() == [2, 4]
    scores = evaluate(query, gallery)
    assert scores.cmc == (0, 1, 1, 1, 1, 1, 1) and (scores.rank1, scores.rank5, scores.rank10) == (0, 1, 1)
    assert scores.mAP == pytest.approx(1 / 2) and scores.mINP == pytest.approx(1 / 2)
    assert scores.mAP_trapezoid == pytest.approx(1 / 3)
    assert (scores.queries, scores.dropped_queries) == (1, 0)


def test_equal_distances_rank_by_gallery_index() -> None:
    # All at distance 1 from the query but the last: the places 0..4 rank 1..5, whatever side they lie on.
    gallery = features([1, -1, 1, -1, 1, 2], [2, 1, 2, 1, 2, 1], [2] * 6)
    assert rank_matches(features([0], [1], [1]), gallery).ranks.tolist() == [2, 4, 6]


def test_cosine_ranks_by_angle_and_not_by_length() -> None:
    def at(degrees: float, length: float) -> list[float]:
        return [length * np.cos(np.radians(degrees)), length * np.sin(np.radians(degrees))]

    # Angles to the query (at 10 degrees): 5, 20, 30, 170; the lengths would order them otherwise.
    gallery = features([at(30, 1.0), at(5, 90.0), at(-20, 1.1), at(-160, 0.01)], [2, 1, 2, 1], [2] * 4)
    query = features([at(10, 1.0)], [1], [1])
    assert rank_matches(query, gallery, metric="cosine").ranks.tolist() == [1, 4]
    assert rank_matches(query, gallery, metric="euclidean").ranks.tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["random", "clustered", "tied"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_stable_sort_in_float64(kind: str, seed: int) -> None:
    query, gallery = drawn(kind, seed)
    expected = sorted_reference(query, gallery)
    result = rank_matches(query, gallery, block=16)
    assert [result.hits(i).tolist() for i in range(len(query.values))] == expected.ranks
    assert_equals_reference(evaluate(query, gallery, max_rank=300), expected)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_a_stable_sort_on_anything_small(data: st.DataObject) -> None:
    def draw(lowest: int, most: int) -> Features:
        rows = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(lowest, 3), st.integers(1, 3))
        table = np.array(data.draw(st.lists(rows, min_size=1, max_size=most)))
        return features(table[:, :2], table[:, 2], table[:, 3])

    query, gallery, block = draw(1, 6), draw(-1, 15), data.draw(st.integers(1, 7))
    expected = sorted_reference(query, gallery)
    if not any(expected.ranks):
        with pytest.raises(InputError, match="true match"):
            evaluate(query, gallery, block=block)
        return
    result = rank_matches(query, gallery, block=block)
    assert [result.hits(i).tolist() for i in range(len(query.values))] == expected.ranks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = evaluate(query, gallery, block=block)
    assert_equals_reference(scores, expected)
    assert scores.queries == sum(map(bool, expected.ranks))


@pytest.mark.parametrize("kind", ["random", "tied"])
def test_the_block_size_changes_nothing(kind: str) -> None:
    query, gallery = drawn(kind, 5)
    whole = rank_matches(query, gallery, block=40)
    for block in (1, 7, 39, 1000):
        assert np.array_equal(rank_matches(query, gallery, block=block).ranks, whole.ranks)


def test_real_valued_features_agree_with_the_sort() -> None:
    rng = np.random.default_rng(7)
    query, gallery = drawn("random", 7)
    query = features(rng.normal(size=(40, 64)), query.identities, query.cameras)
    gallery = features(rng.normal(size=(300, 64)), gallery.identities, gallery.cameras)
    # Float32 may exchange two neighbors that are equal within rounding, so this is no exact equality.
    assert evaluate(query, gallery).mAP == pytest.approx(sorted_reference(query, gallery).rectangle, abs=1e-3)


def test_junk_costs_no_rank_and_distractors_do() -> None:
    query, hit = features([0], [1], [1]), ([9.0], [1], [2])
    for identity, camera, rank in ((-1, 1, 1), (-1, 2, 1), (1, 1, 1), (0, 1, 4), (0, 2, 4), (5, 1, 4), (5, 2, 4)):
        gallery = features([1, 2, 3, *hit[0]], [identity] * 3 + hit[1], [camera] * 3 + hit[2])
        assert rank_matches(query, gallery).ranks.tolist() == [rank], (identity, camera)


def test_queries_without_a_match_are_dropped_with_a_warning() -> None:
    # Query 0 finds its match at rank 1; query 1 has only its own camera's image, query 2 has none.
    query = features([0, 5, 9], [1, 2, 3], [1, 1, 1])
    gallery = features([0, 5, 20], [1, 2, 4], [2, 1, 1])
    with pytest.warns(UserWarning, match="2 of 3 queries have no true match"):
        scores = evaluate(query, gallery)
    assert (scores.queries, scores.dropped_queries) == (1, 2)
    assert (scores.rank1, scores.mAP, scores.mINP) == (1, 1, 1)
    assert scores.mAP_trapezoid == pytest.approx(1 / 3)


def test_the_matrix_of_all_distances_is_never_held() -> None:
    rng = np.random.default_rng(8)
    query = features(rng.normal(size=(4000, 4)), rng.integers(1, 1000, 4000), [1] * 4000)
    gallery = features(rng.normal(size=(8000, 4)), rng.integers(1, 1000, 8000), [2] * 8000)
    _, peak = traced(lambda: rank_matches(query, gallery, block=32))
    assert peak < 4000 * 8000 * 4 / 8  # bytes


def test_matches_and_junk_by_hand() -> None:
    identities = np.array([1, -1, 0, 1, 2, 1, -1])
    cameras = np.array([2, 1, 1, 1, 2, 3, 2])
    matches, junk = matches_and_junk(1, 1, identities, cameras)
    assert matches.tolist() == [0, 5] and junk.tolist() == [1, 3, 6]
    matches, junk = matches_and_junk(9, 1, identities, cameras)
    assert matches.tolist() == [] and junk.tolist() == [1, 6]


def test_one_camera_leaves_nothing_to_find() -> None:
    with pytest.raises(InputError, match=r"all images are from camera 4, .* junk; set the camera numbers"):
        evaluate(features([0, 1], [1, 2], [4, 4]), features([0, 1], [1, 2], [4, 4]))


def test_no_identity_of_the_query_in_the_gallery() -> None:
    with pytest.raises(InputError, match=r"no query identity \(such as 1\) is in the gallery"):
        evaluate(features([0, 1], [1, 2], [1, 2]), features([0, 1], [3, 0], [1, 2]))


def test_only_matches_by_the_own_camera() -> None:
    with pytest.raises(
        InputError, match=r"1 have images of their identity only from their own camera.* 1 have no image"
    ):
        evaluate(features([0, 1], [1, 2], [1, 2]), features([0, 1], [1, 3], [1, 2]))


@pytest.mark.parametrize("identity", [0, -1])
def test_junk_and_distractors_cannot_be_searched_for(identity: int) -> None:
    query = Features(np.zeros((2, 1), np.float32), np.array([1, identity]), np.array([1, 1]), ("a.jpg", "b.jpg"))
    with pytest.raises(InputError, match=rf"row 1 \(b.jpg\) has identity {identity}.*1 of 2"):
        evaluate(query, features([0], [1], [2]))


def test_labels_become_int64() -> None:
    values, large = np.eye(4, dtype=np.float32), 2**60 + np.arange(4)
    query = Features(values, large, np.ones(4, np.int8))
    gallery = Features(values[::-1], large[::-1].astype(np.uint64), np.full(4, 2))
    assert gallery.identities.dtype == query.cameras.dtype == np.int64 and evaluate(query, gallery).mAP == 1.0
    with pytest.raises(InputError, match="identities must be at most 9223372036854775807"):
        Features(values, np.array([1, 2, 3, 2**63], np.uint64), np.ones(4, int))
    with pytest.raises(InputError, match="identities must be at least -1, which is junk, not -2"):
        Features(values, np.array([1, 2, 3, -2]), np.ones(4, int))


def test_invalid_arguments_are_errors() -> None:
    one, wide = features([0], [1], [1]), features([[0, 0]], [1], [2])
    other = features([0], [1], [2])
    with pytest.raises(InputError, match="width"):
        evaluate(one, wide)
    flat = Features(np.empty((1, 0), np.float32), [1], [1])
    for compare in (evaluate, verify, evaluate_single_shot, rerank_ranking):
        with pytest.raises(InputError, match="have no dimensions"):
            compare(flat, Features(np.empty((2, 0), np.float32), [1, 2], [2, 2]))
    with pytest.raises(InputError, match="did you mean cosine"):
        evaluate(one, other, metric="cosin")
    with pytest.raises(InputError, match="max_rank 0: the CMC curve requires at least 1"):
        evaluate(one, other, max_rank=0)
    with pytest.raises(InputError, match="block -1: must be at least 1 query"):
        evaluate(one, other, block=-1)
    nothing = Features(np.zeros((0, 1), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(InputError, match="the query holds no feature row"):
        evaluate(nothing, other)
    with pytest.raises(InputError, match="the gallery holds no feature row"):
        evaluate(one, nothing)
