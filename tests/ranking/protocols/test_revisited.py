from __future__ import annotations

import numpy as np
import pytest
from exact_reference import SETUPS, revisited

from reid.errors import InputError
from reid.ranking.protocols.revisited import evaluate_revisited, precision_at

Lists = dict[str, list[np.ndarray]]


def drawn(
    seed: int, *, tied: bool = True, queries: int = 8, gallery: int = 120
) -> tuple[np.ndarray, np.ndarray, Lists]:
    random = np.random.default_rng(seed)
    values = [
        (random.integers(-2, 3, (n, 3)) if tied else random.normal(size=(n, 9))).astype(np.float32)
        for n in (queries, gallery)
    ]
    lists: dict[str, list[np.ndarray]] = {"easy": [], "hard": [], "junk": []}
    for _ in range(queries):
        chosen = random.permutation(gallery)[: random.integers(3, 40)]
        for name, part in zip(lists, np.split(chosen, np.sort(random.integers(0, len(chosen), 2))), strict=True):
            lists[name].append(part)
    return values[0], values[1], lists


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_sorting(metric: str, seed: int) -> None:
    query, gallery, lists = drawn(seed, tied=metric == "euclidean")
    found = evaluate_revisited(query, gallery, **lists, metric=metric)
    for setup in SETUPS:
        precisions, cuts = revisited(query, gallery, lists, setup, metric)
        np.testing.assert_allclose(found[setup].average_precision, precisions, atol=1e-12)
        assert found[setup].mAP == pytest.approx(np.nanmean(precisions))
        assert list(found[setup].precision.values()) == pytest.approx(np.mean(cuts, axis=0))
        assert found[setup].queries == np.isfinite(precisions).sum()
        assert found[setup].queries + found[setup].dropped_queries == 8


def test_by_hand() -> None:
    # On a line at 1..6: hard, junk, easy, nothing, hard, nothing.
    gallery = np.arange(1.0, 7)[:, None]
    found = evaluate_revisited(
        np.zeros((1, 1)),
        gallery,
        easy=[np.array([2])],
        hard=[np.array([4, 0])],
        junk=[np.array([1])],
        metric="euclidean",
    )
    # Easy: without 0, 1 and 4 the easy one is first. Medium: ranks 1, 2, 4 of 5. Hard: ranks 1 and 3 of 4.
    assert found["easy"].mAP == 1
    assert found["medium"].mAP == pytest.approx((1 + 1 + (2 / 3 + 3 / 4) / 2) / 3)
    assert found["hard"].mAP == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    # The last hit stands at 4 and at 3: so far precision at 5 and 10 goes.
    assert found["medium"].precision == {1: 1, 5: pytest.approx(3 / 4), 10: pytest.approx(3 / 4)}
    assert found["hard"].precision == {1: 1, 5: pytest.approx(2 / 3), 10: pytest.approx(2 / 3)}
    assert set(found["hard"].to_json()) == {"mAP", "mP@1", "mP@5", "mP@10", "queries", "dropped_queries"}


def test_precision_ends_at_the_last_hit() -> None:
    ranks = np.array([2, 3, 7])
    assert [precision_at(ranks, k) for k in (1, 2, 5, 7, 10)] == [0, 1 / 2, 2 / 5, 3 / 7, 3 / 7]


def test_a_query_without_positives_is_left_out() -> None:
    query, gallery, lists = drawn(3, tied=False)
    lists["easy"][2] = np.array([], dtype=np.int64)
    found = evaluate_revisited(query, gallery, **lists)["easy"]
    assert np.isnan(found.average_precision[2])
    assert found.mAP == pytest.approx(np.nanmean(found.average_precision))


def test_what_cannot_be_evaluated() -> None:
    query, gallery, lists = drawn(0, tied=False)
    empty = [np.array([], dtype=np.int64)] * 8
    with pytest.raises(InputError, match="7 lists of junk images for 8 queries"):
        evaluate_revisited(query, gallery, **{**lists, "junk": lists["junk"][1:]})
    with pytest.raises(InputError, match="query 0 lists gallery image 120, but there are 120 images"):
        evaluate_revisited(query, gallery, **{**lists, "easy": [np.array([120]), *lists["easy"][1:]]})
    with pytest.raises(InputError, match="twice"):
        evaluate_revisited(query, gallery, easy=[np.array([3])] * 8, hard=[np.array([3])] * 8, junk=empty)
    with pytest.raises(InputError, match="0 of 8 queries have an image to find in the setup 'hard'"):
        evaluate_revisited(query, gallery, easy=lists["easy"], hard=empty, junk=empty)
