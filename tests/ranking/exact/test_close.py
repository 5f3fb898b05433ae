"""Collapsed features and others with many ties: ranked exactly, and in little time."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact_reference import labels, ranks, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.errors import InputError
from reid.ranking import rank_matches, search
from reid.ranking.exact import bounds, gallery_rows
from reid.ranking.exact import ranks as nearer
from reid.ranking.exact.close import close_distances, distinct_rows, group_queries
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.gallery_rows import RowSource
from reid.ranking.exact.options import ComparisonOptions
from reid.ranking.exact.tiles import distance_tiles
from reid.records import Features

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def crowd(patch: pytest.MonkeyPatch) -> None:
    """Compare a query in float64 as soon as one comparison is undecided, in tiles of 256 rows."""
    for name in ("_CROWDED", "_CROWDED_SHARE", "_MIN_CROWDED_PER_ROW"):
        patch.setattr(nearer, name, 0)
    patch.setattr(gallery_rows, "_TILE_BYTES", 1)


def base(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=width).astype(np.float32).astype(np.float64)


def ulps(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    return base(width) * (1 + 6e-8 * rng.integers(-1, 2, (rows, width)))


def clusters(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Copies of five rows whose lengths differ by up to a million times."""
    centers = np.stack([10.0 ** (i - 2) * 4 * base(width, i) for i in range(5)])
    return centers[rng.integers(0, 5, rows)]


def outlier(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    values = rng.normal(size=(rows, width))
    values[rows // 2] *= 1e6
    return values


CASES: dict[str, Draw] = {
    "equal": lambda rng, rows, width: np.tile(base(width), (rows, 1)),
    "relative noise": lambda rng, rows, width: base(width) * (1 + 1e-6 * rng.normal(size=(rows, width))),
    "ulps": ulps,
    "clusters": clusters,
    "ulps of clusters": lambda rng, rows, width: clusters(rng, rows, width) * ulps(rng, rows, width) / base(width),
    "binary": lambda rng, rows, width: rng.integers(0, 2, (rows, width)).astype(float),
    "integers": lambda rng, rows, width: 1000.0 + rng.integers(-2, 3, (rows, width)),
    "outlier": outlier,
    "one differs": lambda rng, rows, width: np.where(np.arange(rows)[:, None] == 3, 2.0, 1.0) * base(width),
    "subnormal": lambda rng, rows, width: 1e-41 * rng.integers(-2, 3, (rows, width)),
    "permuted": lambda rng, rows, width: rng.permuted(np.tile(base(width), (rows, 1)), axis=1),
    "relu": lambda rng, rows, width: np.maximum(ulps(rng, rows, width), 0.0),
}


def compare(
    query: np.ndarray, gallery: np.ndarray, *, seed: int = 0, metric: str = "euclidean", tensor: bool = False
) -> None:
    """Rank in blocks of all queries and of 5, one of which takes arrays and the other tensors; tensor: the first."""
    rng = np.random.default_rng([seed, len(gallery)])
    of_query, of_gallery = (labels(rng, len(part), lowest=low) for part, low in ((query, 1), (gallery, -1)))
    of_gallery[-1] = of_query[0] + [0, 1]  # one match at least
    ranked = (unit(query), unit(gallery)) if metric == "cosine" else (query, gallery)
    expected = ranks(ranked[0], of_query, ranked[1], of_gallery)
    for block, as_tensor in ((1000, tensor), (5, not tensor)):
        given = [torch.from_numpy(part) if as_tensor else part for part in (query, gallery)]
        found = rank_matches(
            Features(given[0], *of_query.T), Features(given[1], *of_gallery.T), metric=metric, block=block
        )
        assert [found.hits(i).tolist() for i in range(len(query))] == expected


@pytest.mark.parametrize("width", [2, 37])
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ranks_are_those_of_sorted_exact_distances(
    kind: str, width: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch)
    rng = np.random.default_rng([width, len(kind)])
    with np.errstate(over="ignore"):
        query, gallery = (CASES[kind](rng, rows, width).astype(dtype) for rows in (15, 400))
    if not all(np.isfinite(part).all() for part in (query, gallery)):
        pytest.skip("beyond the range of float16")
    compare(query, gallery, tensor=width == 2)
    if all(part.any(axis=1).all() for part in (query, gallery)):
        compare(query, gallery, metric="cosine")


# Numbers whose differences vanish, tie, cancel or are exact, beside others of which they are not.
NUMBERS = [0.0, -0.0, 1.0, 1 + 2.0**-23, 1 - 2.0**-24, -1.0, 2.0, 1 / 3, 3e4, 3e4 + 2.0**-9, 1e-30, 2.0**-149, -7e9]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_mixture_of_clusters_and_ulps_is_ranked_exactly(data: st.DataObject) -> None:
    width, rng = data.draw(st.integers(1, 6)), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    row = st.lists(st.sampled_from(NUMBERS), min_size=width, max_size=width)
    centers = np.array(data.draw(st.lists(row, min_size=1, max_size=4)))
    moved = data.draw(st.sampled_from([0.0, 2.0**-24, 2.0**-23, 1e-6, 1.0]))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    query, gallery = (
        (centers[rng.integers(0, len(centers), n)] * (1 + moved * rng.integers(-1, 2, (n, width)))).astype(dtype)
        for n in (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 60)))
    )
    with pytest.MonkeyPatch.context() as patch:
        crowd(patch)
        compare(query, gallery, seed=data.draw(st.integers(0, 99)))


def test_targets_that_are_not_left_out_and_rows_that_are() -> None:
    rng = np.random.default_rng(1)
    for kind in ("binary", "clusters", "ulps"):
        query, gallery = (CASES[kind](rng, rows, 8).astype(np.float32) for rows in (20, 700))
        targets = np.stack([np.sort(rng.choice(700, 6, replace=False)) for _ in query])
        kept = rng.random(700) < 0.7
        left_out = rng.random((20, 700)) < 0.2

        def excluded(first: int, queries: int, start: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
            queries_of, columns = np.nonzero(left_out[first : first + queries, start : start + rows])  # noqa: B023
            return queries_of, columns

        with pytest.MonkeyPatch.context() as patch:
            crowd(patch)
            options = ComparisonOptions(block=7)
            offsets = np.arange(21) * 6
            found = nearer.count_nearer(
                query, gallery, offsets, targets.ravel(), excluded=excluded, keep=kept, options=options
            )
        for i in range(20):
            exact = squared_distances(np.tile(query[i], (700, 1)), gallery)
            counted = kept & ~left_out[i]
            for target, count in zip(targets[i], found.counts[6 * i :], strict=False):
                before = (exact < exact[target]) | ((exact == exact[target]) & (np.arange(700) < target))
                assert count == np.count_nonzero(before & counted)


@pytest.mark.parametrize("kind", CASES)
def test_distances_are_within_their_bound_and_exact_where_it_is_zero(kind: str) -> None:
    rng = np.random.default_rng(3)
    query, gallery = (CASES[kind](rng, rows, 20).astype(np.float32) for rows in (40, 90))
    source, rows = RowSource(query, "euclidean"), distinct_rows(gallery)
    assert np.array_equal(rows.values[rows.inverse], gallery) and len(rows.first) == len(
        np.unique(gallery + 0.0, axis=0)
    )
    seen = np.zeros((40, 90), dtype=int)
    for group in group_queries(source):
        for found in close_distances(source, group, rows):
            values = found.values[:, found.inverse]
            assert np.array_equal(rows.inverse[found.distinct[found.inverse]], rows.inverse[found.columns])
            for i, number in enumerate(found.queries):
                exact = squared_distances(np.tile(query[number], (len(found.columns), 1)), gallery[found.columns])
                assert (abs(values[i] - exact) <= found.half_width[i]).all()
                seen[number, found.columns] += 1
            if kind in ("equal", "binary", "integers"):
                assert not found.half_width.any()
    assert (seen == 1).all()


def test_clusters_become_groups_and_far_rows_do_not() -> None:
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 4, 200)
    rows = np.array([1e-3, 1.0, 50.0, 1e4])[cluster, None] * (1 + 1e-6 * rng.normal(size=(200, 16)))
    rows[:3] *= 1e9
    groups = group_queries(RowSource(rows, "euclidean"))
    assert sorted(np.concatenate([group.numbers for group in groups])) == list(range(200))
    members = [set(np.flatnonzero(cluster[3:] == c) + 3) for c in range(4)]
    assert all(any(member <= set(group.numbers) for group in groups) for member in members)
    assert 4 <= len(groups) <= 6 and max(len(group.numbers) for group in groups) < 80
    # Rows without clusters stay together.
    assert len(group_queries(RowSource(rng.normal(size=(100, 16)), "euclidean"))) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=4))
def test_a_grid_is_the_coarsest_power_of_two_that_divides_all_numbers(numbers: list[float]) -> None:
    unit_of = float(bounds.grid(np.array([numbers]))[0])
    if not any(numbers):
        assert unit_of == np.inf
        return
    assert np.frexp(unit_of)[0] == 0.5
    quotients = [Fraction(x) / Fraction(unit_of) for x in numbers]
    assert all(q.denominator == 1 for q in quotients) and any(q.numerator % 2 for q in quotients)


@pytest.mark.parametrize("bits", [24, 53])
def test_products_on_a_grid_are_exact_up_to_the_limit(bits: int) -> None:
    rng = np.random.default_rng(5)
    dtype = np.float32 if bits == 24 else np.float64
    limit, exact = 2 ** ((bits - 1) // 2), 0
    for _ in range(200):
        scale = limit * rng.uniform(0.1, 0.4)
        query, row = (np.rint(scale * rng.uniform(-1, 1, 16)) for _ in range(2))
        reach = np.linalg.norm(query) + np.linalg.norm(row)
        if bounds.is_exact(reach, 1.0, bits):
            true = sum((int(a) - int(b)) ** 2 for a, b in zip(query, row, strict=True))
            left, right = query.astype(dtype), row.astype(dtype)
            assert left @ left + right @ right - 2 * (left @ right) == true
            exact += 1
    assert 20 < exact < 200
    assert not bounds.is_exact(0.0, 2.0**-600, bits) and bounds.is_exact(0.0, np.inf, bits)


@pytest.mark.parametrize("width", [2, 37])
@pytest.mark.parametrize("kind", CASES)
def test_nearest_rows_are_those_of_sorted_exact_distances(
    kind: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_SPARE", 0)  # ties overflow every shortlist
    monkeypatch.setattr(gallery_rows, "_TILE_BYTES", 1)
    rng = np.random.default_rng(8)
    query, gallery = (CASES[kind](rng, rows, width).astype(np.float32) for rows in (30, 600))
    expected = np.stack([squared_distances(np.tile(row, (600, 1)), gallery) for row in query])
    for k in (1, 7, 300, 600):
        found = search.top_k(query, gallery, k)
        assert np.array_equal(found.indices, np.argsort(expected, axis=1, kind="stable")[:, :k])
        assert np.array_equal(found.distances, np.sort(expected, axis=1)[:, :k])


def test_nearest_among_equal_rows_take_few_exact_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0

    def counted(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        nonlocal computed
        computed += len(first)
        return squared_distances(first, second)

    monkeypatch.setattr(gallery_rows, "squared_distances", counted)
    for kind in ("equal", "clusters", "binary"):
        query, gallery = (CASES[kind](np.random.default_rng(9), rows, 8).astype(np.float32) for rows in (300, 3000))
        search.top_k(query, gallery, 10)
        assert computed <= 300 * 100, kind  # compared with all rows, it would be 300 * 3000
        computed = 0


@pytest.mark.parametrize("kind", CASES)
def test_tiles_are_within_their_bound_and_exact_where_it_is_zero(kind: str) -> None:
    rng = np.random.default_rng(10)
    query, gallery = (CASES[kind](rng, rows, 9).astype(np.float32) for rows in (30, 100))
    for tile in distance_tiles(query, gallery):
        rows, columns = np.divmod(np.arange(3000), 100)
        exact = squared_distances(query[rows], gallery[columns])
        assert (abs(tile.distances[rows, columns] - exact) <= tile.bound[rows]).all()
        assert np.array_equal(tile.exact(rows, columns), exact)
        some = rng.permutation(3000)[:50]
        assert np.array_equal(tile.exact(rows[some], columns[some]), exact[some])
        if kind in ("equal", "binary", "integers"):
            assert not tile.bound.any()


def work(kind: str, rows: int, width: int = 32) -> tuple[int, int]:
    """Exact comparisons and pairs of an evaluation with rows / 4 queries."""
    rng = np.random.default_rng(6)
    query, gallery = (CASES[kind](rng, number, width).astype(np.float32) for number in (rows // 4, rows))
    of_query, of_gallery = (labels(rng, len(part), lowest=1, identities=rows // 20) for part in (query, gallery))
    found = rank_matches(Features(query, *of_query.T), Features(gallery, *of_gallery.T)).work
    assert found is not None
    return found.recomputed, found.pairs


@pytest.mark.parametrize(
    "kind", ["equal", "relative noise", "ulps", "clusters", "binary", "integers", "outlier", "relu"]
)
def test_exact_comparisons_stay_few_however_many_rows_collapse(kind: str) -> None:
    for rows in (1000, 2000, 4000):
        recomputed, pairs = work(kind, rows)
        # Before equal rows were compared once, this was a multiple of all pairs.
        assert recomputed <= 0.03 * pairs + 8 * rows, (kind, rows, recomputed / pairs)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_collapsed_features_that_are_not_finite_are_refused(bad: float) -> None:
    rows = np.ones((1500, 4), dtype=np.float32)
    of = labels(np.random.default_rng(7), 1500, lowest=1)
    broken = torch.from_numpy(rows.copy())
    broken[1400, 2] = bad
    with pytest.raises(InputError, match="1 gallery feature rows hold NaN or infinity, the first: 1400"):
        rank_matches(Features(torch.from_numpy(rows[:200]), *of[:200].T), Features(broken, *of.T))
