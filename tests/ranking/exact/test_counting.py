from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exact_reference import distances
from traced import traced

from reid.ranking.exact import ranks
from reid.ranking.exact.counting import (
    INDEX_BITS,
    QUERY_BITS,
    Thresholds,
    TileCounts,
    candidate_keys,
    count_in_tile,
    ordered_bits,
)
from reid.ranking.exact.first_pass import Approximation, integers_exact
from reid.ranking.exact.options import ComparisonOptions
from reid.ranking.exact.ranks import count_nearer

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
LARGEST = float(np.finfo(np.float32).max)


def counted(values: Any, half: Any, thresholds: list[tuple[int, float, float]], *, tensor: bool = False) -> TileCounts:
    matrix = np.array(values, dtype=np.float32)
    rows = np.broadcast_to(np.asarray(half, dtype=np.float64), (len(matrix),))
    query, least, most = (np.array(column) for column in zip(*thresholds, strict=True))
    found = Approximation(torch.from_numpy(matrix) if tensor else matrix, rows)
    return count_in_tile(found, Thresholds(query.astype(np.int64), least.astype(np.float64), most.astype(np.float64)))


def undecided(found: TileCounts, at_once: int = 1 << 18) -> list[tuple[int, int]]:
    parts = list(found.undecided(at_once))
    return sorted((int(t), int(p)) for threshold, place in parts for t, p in zip(threshold, place, strict=True))


def after(value: float, steps: int = 1) -> float:
    """The float32 number some steps above; below for negative `steps`."""
    found = np.float32(value)
    for _ in range(abs(steps)):
        found = np.nextafter(found, np.float32(np.inf if steps > 0 else -np.inf))
    return float(found)


@pytest.mark.parametrize("tensor", [False, True])
def test_by_hand(tensor: bool) -> None:
    # Half width 1 and thresholds 5 and 8 for the first query, [2, 3] for the second, none for the third.
    values = [[3.0, 4.5, 6.5, 9.5, 0.0], [np.inf, 2.5, 0.5, 4.5, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    found = counted(values, 1.0, [(0, 5, 5), (0, 8, 8), (1, 2, 3)], tensor=tensor)
    assert found.nearer.tolist() == [2, 4, 1]
    assert undecided(found) == [(0, 1), (2, 1), (2, 4)]


@pytest.mark.parametrize("threshold", [1.0, -1.0, 1e-3, 1e20, -1e20, 0.0, 1e-44])
@pytest.mark.parametrize("half", [0.25, 1e-6, 0.0])
def test_what_is_outside_the_bound_is_decided_and_what_is_inside_is_not(threshold: float, half: float) -> None:
    width = half * max(abs(threshold), 1e-30)
    low, high = threshold - width, threshold + width
    # Limits are rounded outwards to float32: by less than two steps.
    outside = [after(low, -3), after(low, -40), -LARGEST, after(high, 3), after(high, 40), LARGEST]
    inside = [
        v for v in (after(low), after(low, 0), after(threshold, 0), after(high, 0), after(high, -1)) if low <= v <= high
    ]
    found = counted([outside + inside], width, [(0, threshold, threshold)])
    assert found.nearer.tolist() == [3]
    assert undecided(found) == [(0, len(outside) + i) for i in range(len(inside))]


@pytest.mark.parametrize("tensor", [False, True])
def test_nothing_is_guessed_and_nothing_is_forgotten(tensor: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        queries, rows = int(rng.integers(1, 6)), int(rng.integers(1, 60))
        values = rng.choice([rng.normal(), 0.0, -0.0, SMALLEST, -SMALLEST, 1.0, after(1.0), np.inf], (queries, rows))
        values = np.where(rng.random(values.shape) < 0.5, rng.normal(size=values.shape), values).astype(np.float32)
        half = rng.choice([0.0, 1e-8, 0.1, 1.0], queries)
        query = np.sort(rng.integers(0, queries, 9))
        least = rng.choice(np.append(values[np.isfinite(values)], 0.5), 9).astype(np.float64)
        most = least + rng.choice([0.0, 1e-7, 0.2], 9)
        found = counted(values, half, list(zip(query.tolist(), least, most, strict=True)), tensor=tensor)
        left = undecided(found)
        assert len(left) == len(set(left))
        for m in range(9):
            row, width = values[query[m]].astype(np.float64), half[query[m]]
            open_here = {place for threshold, place in left if threshold == m}
            # What may be on either side of the threshold must be left open ...
            either = (row + width >= least[m]) & (row - width <= most[m])
            assert set(np.flatnonzero(either)) <= open_here
            # ... the rest is counted, but for what rounding outwards adds, ...
            certain = {int(i) for i in np.flatnonzero(row + width < least[m])}
            assert found.nearer[m] == len(certain - open_here)
            # ... which is within two steps, ...
            steps = 4 * np.maximum(np.spacing(np.abs(row).astype(np.float32)), np.spacing(np.float32(width)))
            assert all((row + width + steps >= least[m])[i] and (row - width - steps <= most[m])[i] for i in open_here)
            # ... and what is left out is nowhere.
            assert not open_here & set(np.flatnonzero(np.isinf(row)))


def test_the_two_zeros_are_one_distance() -> None:
    values = [[0.0, -0.0, SMALLEST, -SMALLEST, 3 * SMALLEST, -3 * SMALLEST]]
    for zero in (0.0, -0.0):
        found = counted(values, 0.0, [(0, zero, zero)])
        assert {(0, 0), (0, 1)} <= set(undecided(found)) <= {(0, 0), (0, 1), (0, 2), (0, 3)}
        decided_nearer = 1 + ((0, 3) not in undecided(found))
        assert found.nearer.tolist() == [decided_nearer]
    # The limits themselves may be zeros: one step from it on either side.
    for threshold in (SMALLEST, -SMALLEST):
        found = counted(values, 0.0, [(0, threshold, threshold)])
        assert {(0, 0), (0, 1)} <= set(undecided(found)), "rounded outwards, the limit is a zero"


def test_infinity_is_left_out_even_where_the_threshold_is_beyond_float32() -> None:
    values = [[np.inf, LARGEST, -LARGEST, 0.0]]
    found = counted(values, 0.0, [(0, 1e300, 1e300), (0, -1e300, -1e300), (0, -np.inf, np.inf)])
    left = undecided(found)
    assert not any(place == 0 for _, place in left)
    # Beyond all numbers: every pair is nearer or open for the first, none is nearer for the second.
    assert found.nearer[0] + sum(t == 0 for t, _ in left) == 3 and found.nearer[1] == 0
    assert found.nearer[2] == 0 and sum(t == 2 for t, _ in left) == 3


def test_bits_are_in_the_order_of_the_numbers() -> None:
    numbers = [-LARGEST, -1.0, after(-1.0), -SMALLEST, -0.0, 0.0, SMALLEST, 1.0, after(1.0), LARGEST, np.inf]
    bits = ordered_bits(np.array(numbers, dtype=np.float32))
    assert bits.dtype == np.int64 and (np.diff(bits) > 0).all() and bits.min() >= 0 and bits.max() < 2**32
    assert np.array_equal(ordered_bits(torch.tensor(numbers)).numpy(), bits)
    assert np.diff(bits)[[1, 4, 7]].tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(1 << QUERY_BITS, 2), (2, 1 << INDEX_BITS)])
def test_the_largest_blocks_and_tiles_fit_into_a_key(shape: tuple[int, int]) -> None:
    # The largest number in the last place of the last query: its key is the largest there is, and positive.
    values = np.full(shape, np.inf, dtype=np.float32)
    values[0, 0], values[-1, -1] = -LARGEST, LARGEST
    keys = candidate_keys(values, np.full(len(values), LARGEST, dtype=np.float32))
    assert len(keys) == 2 and 0 <= keys[0] < keys[1]
    last = shape[0] - 1
    found = counted(values, 0.0, [(0, LARGEST, LARGEST), (last, LARGEST, LARGEST)])
    assert found.nearer.tolist() == [1, 0] and undecided(found) == [(1, shape[1] - 1)]


def test_undecided_comparisons_come_in_portions() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (5, 50)).astype(np.float32)
    found = counted(values, 0.0, [(q, t, t) for q in range(5) for t in (0.0, 1.0, 7.0)])
    whole = undecided(found)
    assert len(whole) == int((values < 2).sum())
    for at_once in (1, 20, 60, 1000):
        assert undecided(found, at_once) == whole
        assert max(len(threshold) for threshold, _ in found.undecided(at_once)) < at_once + 50


# Distances of gallery rows against a true match: the query is at 0, so that lengths alone decide.
def line(numbers: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Rows of width 4 of these lengths."""
    return (numbers[:, None] * np.array([[0.5, -0.5, 0.5, 0.5]])).astype(dtype)


@pytest.mark.parametrize("first_pass", ["float32", "integers"])
def test_gaps_around_the_bound_in_the_whole(first_pass: str) -> None:
    """True distances from far inside the bound to far outside it, doubling, on both sides of a true match."""
    if first_pass == "integers" and not integers_exact(4):
        pytest.skip("this machine has no exact 8-bit products")
    gaps = 2.0 ** -np.arange(1, 50)
    lengths = np.concatenate([[1.0], np.sqrt(1 + gaps), np.sqrt(1 - gaps), [1.0]])
    query, gallery = np.zeros((1, 4)), line(lengths, np.float64)
    offsets, targets = np.array([0, 1]), np.array([0])

    def itself(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return (np.zeros(1, np.int64), np.zeros(1, np.int64)) if first == 0 else (np.empty(0, np.int64),) * 2

    found = count_nearer(
        query, gallery, offsets, targets, excluded=itself, options=ComparisonOptions(first_pass=first_pass)
    )
    true = distances(query, gallery)[0]
    assert found.counts.tolist() == [int((true[1:] < true[0]).sum())]
    # Wide gaps are decided at once, narrow ones are not; the bound lies somewhere between.
    assert 10 < found.work.recomputed < 98
    assert found.work.first_pass == first_pass


@pytest.mark.parametrize("crowded", [False, True])
def test_equal_rows_by_the_thousand_take_little_memory(crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not crowded:  # every comparison is listed
        monkeypatch.setattr(ranks, "_MIN_CROWDED_PER_ROW", np.inf)
    queries, rows, each = 16, 2048, 20
    query, gallery = np.ones((queries, 8), np.float32), np.ones((rows, 8), np.float32)
    offsets, targets = np.arange(queries + 1) * each, np.tile(np.arange(each), queries)

    def nothing(first_query: int, queries: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return (np.empty(0, np.int64),) * 2

    options = ComparisonOptions(first_pass="float32")
    found, peak = traced(lambda: count_nearer(query, gallery, offsets, targets, excluded=nothing, options=options))
    assert found.work.recomputed == (0 if crowded else queries * rows * each)
    assert found.counts.tolist() == list(range(each)) * queries
    assert peak < queries * rows * each * 8 * 8, peak  # a list of all comparisons and its helpers take twice that
