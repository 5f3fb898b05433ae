from __future__ import annotations

import numpy as np
import pytest
from exact_reference import features
from traced import traced

from reid.errors import InputError
from reid.ranking import rank_matches
from reid.ranking.protocols import single_shot as module
from reid.ranking.protocols.single_shot import evaluate_single_shot, single_shot_ranks
from reid.records import Features


def drawn(seed: int, kind: str = "tied", people: int = 9) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)

    def side(count: int, lowest: int) -> Features:
        values = random.integers(0, 3, (count, 2)) if kind == "tied" else random.normal(size=(count, 24))
        return features(values, random.integers(lowest, people, count), random.integers(1, 4, count))

    return side(12, 1), side(150, -1)


def naive(query: Features, gallery: Features, repeats: int, seed: int) -> list[list[int]]:
    """Draw, sort in float64, look where the match stands; identity by identity, repeat by repeat."""
    random = np.random.default_rng(seed)
    found = []
    for q, identity, camera in zip(query.values.astype(np.float64), query.identities, query.cameras, strict=True):
        junk = (gallery.identities == -1) | ((gallery.identities == identity) & (gallery.cameras == camera))
        if not (~junk & (gallery.identities == identity)).any():
            continue
        people = sorted(set(gallery.identities[~junk].tolist()) - {0})
        images = {person: [i for i in np.flatnonzero(~junk) if gallery.identities[i] == person] for person in people}
        picks = random.integers([len(images[person]) for person in people], size=(repeats, len(people)))
        ranks = []
        for pick in picks:
            shown = [images[person][i] for person, i in zip(people, pick, strict=True)]
            shown += np.flatnonzero(gallery.identities == 0).tolist()
            distances = [(((gallery.values[i].astype(np.float64) - q) ** 2).sum(), i) for i in shown]
            ranks.append(1 + [gallery.identities[i] for _, i in sorted(distances)].index(identity))
        found.append(ranks)
    return found


@pytest.mark.parametrize("kind", ["tied", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_drawing_and_sorting(kind: str, seed: int) -> None:
    query, gallery = drawn(seed, kind)
    assert single_shot_ranks(query, gallery, repeats=7, seed=seed).tolist() == naive(query, gallery, 7, seed)


def test_by_hand() -> None:
    # The query (person 1, camera 1) at 0. Person 2 has one image at 3; person 1 is found at 2 (rank 1) or at 5 (rank 2,
    # or 3 where person 3's image at 4 rather than that at 9 is drawn). The images at 1 and 0.5 are junk.
    query = features([0], [1], [1])
    gallery = features([0.5, 1, 2, 3, 4, 5, 9], [-1, 1, 1, 2, 3, 1, 3], [2, 1, 2, 2, 2, 3, 3])
    ranks = single_shot_ranks(query, gallery, repeats=4000, seed=3)
    share = np.bincount(ranks[0], minlength=4)[1:] / 4000
    np.testing.assert_allclose(share, [1 / 2, 1 / 4, 1 / 4], atol=0.03)
    scores = evaluate_single_shot(query, gallery, repeats=4000, seed=3)
    assert scores.rank1 == share[0] and scores.rank5 == 1
    assert scores.mean_reciprocal_rank == pytest.approx(share @ [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(scores.cmc[:4], [*np.cumsum(share), 1])


def test_one_image_a_person_is_the_market_protocol() -> None:
    random = np.random.default_rng(0)
    people = np.arange(1, 31)
    query = features(random.normal(size=(30, 8)), people, [1] * 30)
    gallery = features(random.normal(size=(30, 8)), people, [2] * 30)
    ranks = single_shot_ranks(query, gallery, repeats=3)
    assert np.array_equal(ranks, np.repeat(rank_matches(query, gallery).ranks[:, None], 3, axis=1))
    scores = evaluate_single_shot(query, gallery, repeats=3)
    assert scores.spread == 0
    assert scores.mean_reciprocal_rank == pytest.approx(float((1 / ranks).mean()))


def test_the_draw_follows_from_seed_and_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = drawn(5)
    whole = single_shot_ranks(query, gallery, repeats=20, seed=1)
    assert not np.array_equal(whole, single_shot_ranks(query, gallery, repeats=20, seed=2))
    monkeypatch.setattr(module, "_AHEAD_BYTES", 1)
    assert np.array_equal(whole, single_shot_ranks(query, gallery, repeats=20, seed=1))


def test_queries_without_a_match_are_left_out_with_a_warning() -> None:
    query = features([0, 5], [1, 2], [1, 1])
    gallery = features([0, 5], [1, 2], [2, 1])
    with pytest.warns(UserWarning, match="1 of 2 queries have no true match"):
        scores = evaluate_single_shot(query, gallery, repeats=2)
    assert (scores.queries, scores.dropped_queries, scores.rank1) == (1, 1, 1)


def test_what_cannot_be_evaluated() -> None:
    query, gallery = drawn(0)
    with pytest.raises(InputError, match="repeats 0: must be at least 1"):
        single_shot_ranks(query, gallery, repeats=0)
    with pytest.raises(InputError, match="the CMC curve requires at least 1"):
        evaluate_single_shot(query, gallery, max_rank=0)
    with pytest.raises(InputError, match="metric"):
        single_shot_ranks(query, gallery, metric="manhattan")
    with pytest.raises(InputError, match="no query identity"):
        single_shot_ranks(query, features([0, 1], [77, 78], [1, 2]))


def test_memory_stays_bounded() -> None:
    random = np.random.default_rng(8)
    query = features(random.normal(size=(600, 4)), random.integers(1, 100, 600), [1] * 600)
    gallery = features(random.normal(size=(8000, 4)), random.integers(1, 100, 8000), [2] * 8000)
    _, peak = traced(lambda: single_shot_ranks(query, gallery, repeats=2))
    assert peak < 600 * 80 * 8000 / 2  # bytes, of the about 80 true matches each with every image


def test_distances_that_lose_bits_below_the_range_of_float64() -> None:
    query, gallery = drawn(5, "random")
    sides = [
        Features(side.values.astype(np.float64) * 1e-160, side.identities, side.cameras) for side in (query, gallery)
    ]
    assert single_shot_ranks(*sides, repeats=5, seed=1).tolist() == naive(*sides, repeats=5, seed=1)
