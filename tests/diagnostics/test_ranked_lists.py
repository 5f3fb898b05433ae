"""Ranked lists, compared with plain float64 loops on features with many ties, junk and distractors."""

from __future__ import annotations

import numpy as np
import pytest

from reid.diagnostics.ranked_lists import lowest_ap_first, ranked_lists, result_entries
from reid.diagnostics.retrieval import check_sizes
from reid.errors import InputError
from reid.ranking import evaluate
from reid.records import Features


def random_features(
    seed: int, queries: int = 25, gallery: int = 60, *, whole: bool = True
) -> tuple[Features, Features]:
    """Features of small whole numbers, so that many distances are equal; identities -1 .. 6, cameras 1 .. 3."""
    random = np.random.default_rng(seed)

    def part(count: int, lowest: int, name: str) -> Features:
        values = random.integers(0, 3, (count, 4)) if whole else random.normal(size=(count, 4))
        identities, cameras = random.integers(lowest, 7, count), random.integers(1, 4, count)
        return Features(values.astype(np.float32), identities, cameras, tuple(f"{name}/{i}.jpg" for i in range(count)))

    return part(queries, 1, "q"), part(gallery, -1, "g")


def naive_list(query: Features, gallery: Features, i: int) -> list[tuple[int, float, bool]]:
    """(gallery row, Euclidean distance, right) of every answer that is no junk, in order."""
    found = []
    for j in range(len(gallery.values)):
        same = gallery.identities[j] == query.identities[i]
        if gallery.identities[j] == -1 or (same and gallery.cameras[j] == query.cameras[i]):
            continue
        squared = sum((float(a) - float(b)) ** 2 for a, b in zip(query.values[i], gallery.values[j], strict=True))
        found.append((squared, j, bool(same)))
    return [(j, squared**0.5, same) for squared, j, same in sorted(found)]


def naive_ap(right: list[bool]) -> float:
    hits, total = 0, 0.0
    for rank, same in enumerate(right, start=1):
        if same:
            hits += 1
            total += hits / rank
    return total / hits if hits else float("nan")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top", [1, 10])
def test_lists_are_those_of_a_plain_sort(seed: int, top: int) -> None:
    query, gallery = random_features(seed)
    lists = ranked_lists(query, gallery, top=top)
    for i in range(len(query.values)):
        wanted = naive_list(query, gallery, i)
        assert lists.gallery[i].tolist() == [j for j, _, _ in wanted[:top]]
        assert lists.correct[i].tolist() == [same for _, _, same in wanted[:top]]
        np.testing.assert_allclose(lists.distances[i], [distance for _, distance, _ in wanted[:top]], rtol=1e-12)
        right = [same for _, _, same in wanted]
        assert lists.ranking.first_hit[i] == (right.index(True) + 1 if any(right) else 0)
        assert lists.ranking.matches[i] == sum(right)
        np.testing.assert_allclose(lists.ranking.average_precision[i], naive_ap(right), rtol=1e-12)
    assert lists.ranking.scores() == evaluate(query, gallery)


def test_rounding_of_float32_does_not_change_the_order() -> None:
    # Far from the origin |q|^2 - 2 q.g + |g|^2 loses nearly all of these distances' digits.
    query, gallery = random_features(0, whole=False)
    query, gallery = (Features(f.values + np.float32(3000), f.identities, f.cameras) for f in (query, gallery))
    lists = ranked_lists(query, gallery)
    for i in range(len(query.values)):
        assert lists.gallery[i].tolist() == [j for j, _, _ in naive_list(query, gallery, i)[:10]]
        hits = lists.ranking.hits(i)
        assert (np.flatnonzero(lists.correct[i]) + 1).tolist() == hits[hits <= 10].tolist()


def test_a_list_ends_where_the_gallery_does() -> None:
    query = Features(np.zeros((1, 2), np.float32), np.array([1]), np.array([1]))
    labels = np.array([1, -1, 1, 0]), np.array([2, 2, 1, 1])  # a match, junk, the query's own camera, a distractor
    lists = ranked_lists(query, Features(np.float32([[3, 4], [0, 0], [0, 0], [6, 8]]), *labels), top=5)
    assert lists.gallery.tolist() == [[0, 3, -1, -1, -1]]
    assert lists.distances[0, :2].tolist() == [5, 10] and np.isnan(lists.distances[0, 2:]).all()
    assert lists.correct.tolist() == [[True, False, False, False, False]]


def test_plain_values_of_a_list() -> None:
    query, gallery = random_features(1)
    found = result_entries(ranked_lists(query, gallery, top=3), gallery, 2)
    for rank, (answer, (j, distance, same)) in enumerate(zip(found, naive_list(query, gallery, 2), strict=False), 1):
        assert answer == {
            "rank": rank,
            "path": f"g/{j}.jpg",
            "identity": gallery.identities[j],
            "camera": gallery.cameras[j],
            "distance": pytest.approx(distance),
            "right": same,
        }
    assert len(found) == 3


def test_lowest_ap_first_omits_queries_without_matches() -> None:
    query, gallery = random_features(2)
    query.identities[[0, 5]] = 99
    lists = ranked_lists(query, gallery)
    ap = lists.ranking.average_precision
    order = lowest_ap_first(lists, 100)
    assert set(order.tolist()) == set(range(len(ap))) - {0, 5}
    assert order.tolist() == sorted(order.tolist(), key=lambda i: (ap[i], i))
    assert lowest_ap_first(lists, 4).tolist() == order[:4].tolist()
    assert lowest_ap_first(lists, 0).tolist() == []


@pytest.mark.parametrize("top", [0, 51])
def test_a_length_out_of_range_is_reported(top: int) -> None:
    with pytest.raises(InputError, match=f"1 to 50 results, not {top}"):
        ranked_lists(*random_features(0), top=top)
    with pytest.raises(InputError, match=f"1 to 50 results, not {top}"):
        check_sizes(10, top)
