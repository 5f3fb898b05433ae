from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from traced import traced

from reid.errors import InputError
from reid.io.shards import Shards
from reid.ranking.exact import first_pass
from reid.ranking.reranking import jaccard as mixture
from reid.ranking.reranking import rerank
from reid.ranking.reranking.rerank import RerankOptions, rerank_blocks, rerank_ranking
from reid.records import Features


def dense(
    query: np.ndarray, gallery: np.ndarray, *, k1: int, k2: int, weight: float, distance_power: int, metric: str
) -> np.ndarray:
    """(Q, G) float64 from the definition of Zhong et al. 2017, with sets and whole matrices; no code shared."""
    values = np.concatenate([query, gallery]).astype(np.float64)
    if metric == "cosine":
        values = (values / np.sqrt((values**2).sum(axis=1, keepdims=True))).astype(np.float32).astype(np.float64)
    number = len(values)
    distance = np.array([[math.fsum((a - b) ** 2) for b in values] for a in values])
    original = np.divide(distance, distance.max(axis=1, keepdims=True), where=distance > 0, out=np.zeros_like(distance))
    original = original**distance_power
    first = distance.copy()
    np.fill_diagonal(first, -1.0)
    order = np.argsort(first, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    vectors = np.zeros((number, number))
    for i in range(number):
        whole = reciprocal(i, k1)
        expanded = set(whole)
        for candidate in whole:
            half = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(half & whole) > 2 / 3 * len(half):
                expanded |= half
        for j in expanded:
            vectors[i, j] = math.exp(-original[i, j])
        vectors[i] /= vectors[i].sum()
    vectors = np.array([vectors[order[i, :k2]].mean(axis=0) for i in range(number)])
    jaccard = np.array(
        [
            [1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in vectors[len(query) :]]
            for a in vectors[: len(query)]
        ]
    )
    return (1 - weight) * jaccard + weight * original[: len(query), len(query) :]


DEFAULTS: dict[str, Any] = {"k1": 20, "k2": 6, "weight": 0.3, "distance_power": 2, "metric": "euclidean"}


def drawn(kind: str, queries: int, gallery: int, seed: int) -> tuple[Features, Features]:
    """Some identities on three cameras, with junk and distractors."""
    rng = np.random.default_rng(seed)
    identities = rng.integers(1, 9, queries + gallery)
    identities[queries:][rng.random(gallery) < 0.2] = 0
    identities[queries:][rng.random(gallery) < 0.1] = -1
    values = rng.normal(size=(10, 12))[identities] + rng.normal(size=(queries + gallery, 12))
    if kind == "grid":
        values = rng.integers(0, 2, values.shape)
    if kind == "copies":
        values = values[rng.integers(0, len(values) // 3, len(values))]
    if kind == "far":
        values = values + 30
    everything = Features(values.astype(np.float32), identities, rng.integers(1, 4, len(values)))
    parts = slice(queries), slice(queries, None)
    found = [Features(everything.values[p], everything.identities[p], everything.cameras[p]) for p in parts]
    return found[0], found[1]


def options_of(arguments: dict[str, Any]) -> RerankOptions:
    return RerankOptions(**{name: value for name, value in arguments.items() if name not in ("metric", "block")})


def gathered(
    query: np.ndarray, gallery: np.ndarray, *, block: int = 128, metric: str = "euclidean", **options: Any
) -> np.ndarray:
    pieces: list[np.ndarray] = []
    for start, distances in rerank_blocks(query, gallery, RerankOptions(**options), metric=metric, block=block):
        assert start == sum(map(len, pieces)) and len(distances) <= block and distances.dtype == np.float32
        pieces.append(distances.copy())
    return np.concatenate(pieces)


def literal_ranks(query: Features, gallery: Features, distances: np.ndarray) -> list[list[int]]:
    """A stable sort, then the protocol. Rounding makes ties of what differs only by the order of float64 sums."""
    ranks = []
    for row, identity, camera in zip(np.round(distances, 11), query.identities, query.cameras, strict=True):
        order = np.argsort(row, kind="stable")
        identities, cameras = gallery.identities[order], gallery.cameras[order]
        kept = (identities != -1) & ~((identities == identity) & (cameras == camera))
        ranks.append((np.flatnonzero(identities[kept] == identity) + 1).tolist())
    return ranks


@pytest.mark.parametrize("kind", ["clustered", "grid", "copies", "far"])
@pytest.mark.parametrize("distance_power", [2, 1])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_both_definitions_equal_the_dense_reference(kind: str, distance_power: int, metric: str) -> None:
    query, gallery = drawn(kind, 15, 75, 0)
    values = [features.values + np.float32(kind == "grid") for features in (query, gallery)]  # no row of zeros
    arguments = DEFAULTS | {"distance_power": distance_power, "metric": metric}
    expected = dense(*values, **arguments)
    np.testing.assert_allclose(gathered(*values, **arguments), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"k1": 1, "k2": 1},
        {"k1": 5, "k2": 3},
        {"k1": 7, "k2": 1},
        {"k1": 3, "k2": 9},
        {"k1": 59, "k2": 60},
        {"k1": 21, "k2": 2, "weight": 0.5},
        {"weight": 0.0},
        {"weight": 1.0},
    ],
    ids=str,
)
def test_every_parameter_equals_the_dense_reference(changed: dict[str, float]) -> None:
    query, gallery = drawn("clustered", 12, 48, 1)
    arguments = DEFAULTS | changed
    expected = dense(query.values, gallery.values, **arguments)
    for block in (1, 5, 100):
        found = gathered(query.values, gallery.values, block=block, **arguments)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("kind", ["clustered", "grid", "copies", "far"])
@pytest.mark.parametrize(("seed", "distance_power"), [(2, 2), (3, 1), (4, 2)])
def test_ranks_are_those_of_a_stable_sort(
    integers: bool, kind: str, seed: int, distance_power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_pass, "is_int8_faster", lambda width, device="cpu": integers)
    query, gallery = drawn(kind, 20, 100, seed)
    arguments = DEFAULTS | {"distance_power": distance_power, "k1": 10, "k2": 3}
    ranking = rerank_ranking(query, gallery, options_of(arguments))
    expected = literal_ranks(query, gallery, dense(query.values, gallery.values, **arguments))
    assert [ranking.hits(i).tolist() for i in range(len(query.values))] == expected


@pytest.mark.parametrize("error", [0.1, 2.0])
@pytest.mark.parametrize("distance_power", [2, 1])
def test_ranks_from_a_product_as_wrong_as_its_bound_allows(
    error: float, distance_power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(10)
    plain = mixture.approximate

    def wrong(*arguments: Any, **options: Any) -> first_pass.Approximation:
        found = plain(*arguments, **options)
        values = found.values + error * rng.choice([-1, 1], found.values.shape).astype(np.float32)
        return first_pass.Approximation(values, found.half_width + 1.001 * error)

    monkeypatch.setattr(mixture, "approximate", wrong)
    query, gallery = drawn("clustered", 20, 100, 11)
    arguments = DEFAULTS | {"distance_power": distance_power, "weight": 0.6}
    ranking = rerank_ranking(query, gallery, options_of(arguments))
    expected = literal_ranks(query, gallery, dense(query.values, gallery.values, **arguments))
    assert [ranking.hits(i).tolist() for i in range(20)] == expected


@pytest.mark.parametrize("most_open", [0, 3, 1 << 20])
def test_ranks_where_float32_decides_nothing(most_open: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "_MAX_UNDECIDED", most_open)
    query, gallery = drawn("clustered", 10, 50, 5)
    # All rows but a few are equally far from each other: ties by the dozen, and near ties.
    values = np.eye(60, dtype=np.float32)
    values[range(0, 60, 4), range(0, 60, 4)] += np.float32(2.0**-22) * np.arange(15, dtype=np.float32)
    query = Features(values[:10], query.identities, query.cameras)
    gallery = Features(values[10:], gallery.identities, gallery.cameras)
    arguments = DEFAULTS | {"k1": 4, "k2": 2}
    ranking = rerank_ranking(query, gallery, options_of(arguments))
    expected = literal_ranks(query, gallery, dense(query.values, gallery.values, **arguments))
    assert [ranking.hits(i).tolist() for i in range(10)] == expected


def test_images_that_are_all_alike() -> None:
    values = np.ones((30, 4), dtype=np.float32)
    found = gathered(values[:5], values[5:], k1=4, k2=2)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 0.7 + 1e-6


def test_no_array_of_all_pairs_is_held() -> None:
    query, gallery = drawn("clustered", 3000, 3000, 6)
    _, peak = traced(lambda: rerank_ranking(query, gallery))
    assert peak < 6000 * 6000 * 4  # bytes of one array of all pairs in float32


def test_the_inputs_stay_as_they_were() -> None:
    query, gallery = drawn("clustered", 10, 40, 7)
    before = query.values.copy(), gallery.values.copy()
    rerank_ranking(query, gallery, RerankOptions(k1=5))
    gathered(query.values, gallery.values, metric="cosine")
    assert np.array_equal(query.values, before[0]) and np.array_equal(gallery.values, before[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "k1 must be a whole number of at least 1, not 0"),
        ({"k1": 50}, r"k1 50: must be in \[1, 49\], below the 50 query and gallery rows"),
        ({"k2": 0}, "k2 must be a whole number of at least 1, not 0"),
        ({"k2": 51}, r"k2 51: must be in \[1, 50\]"),
        ({"weight": 1.01}, r"weight 1\.01: .*lambda.* in \[0, 1\]"),
        ({"weight": float("nan")}, "weight nan: "),
        (
            {"distance_power": 3},
            "distance_power 3: must be 2 .as in deep-person-reid. or 1 .as in reid-strong-baseline.",
        ),
        ({"metric": "euclid"}, "did you mean euclidean"),
        ({"block": 0}, "block 0: must"),
    ],
    ids=str,
)
def test_invalid_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    query, gallery = drawn("clustered", 10, 40, 8)
    with pytest.raises(InputError, match=message):
        others = {name: arguments[name] for name in ("metric", "block") if name in arguments}
        next(rerank_blocks(query.values, gallery.values, options_of(arguments), **others))


def test_invalid_features_are_reported_with_their_side() -> None:
    query, gallery = drawn("clustered", 10, 40, 9)
    with pytest.raises(InputError, match=r"\(10, 12\).*\(40, 11\)"):
        next(rerank_blocks(query.values, gallery.values[:, :11]))
    broken = gallery.values.copy()
    broken[7, 3] = np.inf
    with pytest.raises(InputError, match="gallery feature row 7 holds NaN or infinity"):
        next(rerank_blocks(query.values, broken))
    with pytest.raises(InputError, match="0 of 10 queries have a true match"):
        rerank_ranking(
            query, Features(gallery.values, np.zeros_like(gallery.identities), gallery.cameras), RerankOptions(k1=5)
        )


@pytest.mark.parametrize("scale", [1e-18, 1e-21, 1e-30])
def test_features_too_small_for_float32_distances(scale: float) -> None:
    query, gallery = drawn("clustered", 10, 50, 12)
    query, gallery = (
        Features((side.values * scale).astype(np.float32), side.identities, side.cameras) for side in (query, gallery)
    )
    arguments = DEFAULTS | {"k1": 8, "k2": 3}
    expected = dense(query.values, gallery.values, **arguments)
    ranking = rerank_ranking(query, gallery, options_of(arguments))
    assert [ranking.hits(i).tolist() for i in range(10)] == literal_ranks(query, gallery, expected)


@pytest.mark.parametrize("stored", [torch.from_numpy, lambda values: Shards([values[:4], values[4:]])])
def test_tensors_and_shards_rank_as_arrays_do(stored: Callable[[np.ndarray], Any]) -> None:
    sides = drawn("clustered", 10, 50, 13)
    others = [Features(stored(side.values), side.identities, side.cameras) for side in sides]
    options = RerankOptions(k1=8)
    assert np.array_equal(rerank_ranking(*others, options).ranks, rerank_ranking(*sides, options).ranks)
