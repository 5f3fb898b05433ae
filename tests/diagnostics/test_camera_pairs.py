"""Scores by camera pair, compared with plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reid.diagnostics.camera_pairs import score_camera_pairs
from reid.ranking import rank_matches
from reid.records import Features


def random_features(seed: int) -> tuple[Features, Features]:
    """Small whole numbers, for ties; query cameras 1, 2, 5, gallery cameras 1, 2, 3; junk and distractors."""
    random = np.random.default_rng(seed)

    def part(count: int, lowest: int, cameras: list[int]) -> Features:
        values = random.integers(0, 3, (count, 3)).astype(np.float32)
        return Features(values, random.integers(lowest, 8, count), random.choice(cameras, count))

    return part(30, 1, [1, 2, 5]), part(50, -1, [1, 2, 3])


def naive_cell(query: Features, gallery: Features, own: int, other: int) -> tuple[list[int], list[float], int]:
    """First hits and APs of the queries by one camera in the images of another, and the queries without a match."""
    firsts, precisions, without = [], [], 0
    for i in np.flatnonzero(query.cameras == own):
        answers = []
        for j in np.flatnonzero(gallery.cameras == other):
            if gallery.identities[j] != -1:
                squared = float(((query.values[i].astype(float) - gallery.values[j].astype(float)) ** 2).sum())
                answers.append((squared, j, gallery.identities[j] == query.identities[i]))
        ranks = [rank for rank, (_, _, same) in enumerate(sorted(answers), start=1) if same]
        if not ranks:
            without += 1
            continue
        firsts.append(ranks[0])
        precisions.append(float(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)])))
    return firsts, precisions, without


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_is_that_of_plain_loops(seed: int) -> None:
    query, gallery = random_features(seed)
    found = score_camera_pairs(query, gallery)
    assert found.query_cameras.tolist() == [1, 2, 5] and found.gallery_cameras.tolist() == [1, 2, 3]
    for a, own in enumerate(found.query_cameras):
        for b, other in enumerate(found.gallery_cameras):
            if own == other:
                assert np.isnan(found.rank1[a, b]) and np.isnan(found.mAP[a, b])
                assert found.queries[a, b] == found.left_out[a, b] == 0
                continue
            firsts, precisions, without = naive_cell(query, gallery, own, other)
            assert (found.queries[a, b], found.left_out[a, b]) == (len(firsts), without)
            assert found.rank1[a, b] == pytest.approx(np.mean([first == 1 for first in firsts]))
            assert found.mAP[a, b] == pytest.approx(np.mean(precisions))
    for b, camera in enumerate(found.gallery_cameras):
        assert found.images[b] == ((gallery.cameras == camera) & (gallery.identities != -1)).sum()


def test_two_cameras_give_the_protocol_itself() -> None:
    # With two cameras, leaving the query's own out is all that the protocol does but for wrong answers by it.
    query, gallery = random_features(0)
    only = query.cameras == 1
    query = Features(query.values[only], query.identities[only], query.cameras[only])
    only = gallery.cameras == 2
    gallery = Features(gallery.values[only], gallery.identities[only], gallery.cameras[only])
    found, scores = score_camera_pairs(query, gallery), rank_matches(query, gallery).scores()
    assert found.rank1.tolist() == [[scores.rank1]] and found.mAP.tolist() == [[pytest.approx(scores.mAP)]]
    assert found.queries.tolist() == [[scores.queries]] and found.left_out.tolist() == [[scores.dropped_queries]]


def test_a_pair_without_a_match_is_empty() -> None:
    query = Features(np.ones((1, 2), np.float32), np.array([1]), np.array([1]))
    gallery = Features(np.ones((3, 2), np.float32), np.array([1, 2, -1]), np.array([2, 3, 4]))
    found = score_camera_pairs(query, gallery)
    assert found.gallery_cameras.tolist() == [2, 3], "camera 4 has junk alone"
    plain = found.to_json()
    assert plain["rank1"] == [[1.0, None]] and plain["queries"] == [[1, 0]] and plain["left_out"] == [[0, 1]]
    json.dumps(plain, allow_nan=False)
