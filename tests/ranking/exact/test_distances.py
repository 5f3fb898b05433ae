from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from reid.ranking.exact import distances as exact
from reid.ranking.exact.distances import squared_distances, squared_lengths

WIDTHS = (0, 1, 2, 3, 4, 5, 37, 64, 512, 1025)


def by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """One pair with Python's floats: squares, zeros up to a power of two, halves added until one is left."""
    terms = [(float(a) - float(b)) * (float(a) - float(b)) for a, b in zip(first, second, strict=True)]
    size = 1
    while size < len(terms):
        size *= 2
    terms += [0.0] * (size - len(terms))
    while len(terms) > 1:
        half = len(terms) // 2
        terms = [terms[i] + terms[half + i] for i in range(half)]
    return terms[0]


def pair(width: int, dtype: str, rows: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width)
    spread = 10.0 ** rng.uniform(-3, 3, size=(rows, width))
    return tuple((rng.normal(size=(rows, width)) * spread).astype(dtype) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_order_of_summation_is_the_documented_one(width: int, dtype: str) -> None:
    first, second = pair(width, dtype)
    expected = [by_hand(a, b) for a, b in zip(first, second, strict=True)]
    found = squared_distances(first, second)
    assert found.dtype == np.float64 and found.tolist() == expected
    zeros = np.zeros_like(first)
    assert squared_lengths(first).tolist() == [by_hand(a, b) for a, b in zip(first, zeros, strict=True)]
    # Near the sum without any rounding, too.
    both = zip(first, second, strict=True)
    true = [math.fsum((float(a) - float(b)) ** 2 for a, b in zip(*rows, strict=True)) for rows in both]
    np.testing.assert_allclose(found, true, rtol=16 * 2.0**-53)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
def test_tensors_give_the_bits_of_arrays(width: int, dtype: str) -> None:
    first, second = pair(width, dtype)
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    found = squared_distances(*tensors)
    assert found.dtype == torch.float64 and found.tolist() == squared_distances(first, second).tolist()
    assert squared_lengths(tensors[0]).tolist() == squared_lengths(first).tolist()
    assert np.array_equal(tensors[0].numpy(), first)  # what was given stays as it was


def test_the_sum_is_not_that_of_another_order() -> None:
    # Or the tests above would say nothing: left to right, and NumPy's own order, give other bits here.
    first, second = pair(1025, "float32", rows=50)
    squares = (first.astype(np.float64) - second) ** 2
    found = squared_distances(first, second)
    assert (np.cumsum(squares, axis=1)[:, -1] != found).any() and (squares.sum(axis=1) != found).any()


@pytest.mark.parametrize("width", [1, 3, 37, 1025])
def test_equal_rows_are_equally_far_wherever_they_stand(width: int) -> None:
    first, second = pair(width, "float32", rows=40)
    expected = squared_distances(first[:1], second[:1])[0]
    for rows in (1, 2, 7, 33):
        for at in range(rows):
            mixed = second[:rows].copy()
            mixed[at] = second[0]
            assert squared_distances(np.repeat(first[:1], rows, axis=0), mixed)[at] == expected
    assert not squared_distances(first, first.copy()).any()


@pytest.mark.parametrize("width", [1, 37, 1025])
def test_the_pieces_it_is_done_in_change_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair(width, "float32", rows=60)
    expected, lengths = squared_distances(first, second), squared_lengths(first)
    for size in (1, 8 * width, 7 * 8 * width, 1 << 30):
        monkeypatch.setattr(exact, "_CACHE_BYTES", size)
        assert np.array_equal(squared_distances(first, second), expected)
        assert np.array_equal(squared_lengths(first), lengths)
    cuts = [0, 1, 2, 19, 60]
    parts = [squared_distances(first[a:b], second[a:b]) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), expected)


def test_memory_order_and_empty_input() -> None:
    first, second = pair(37, "float32")
    expected = squared_distances(first, second)
    assert np.array_equal(squared_distances(np.asfortranarray(first), second[:, ::-1][:, ::-1]), expected)
    assert squared_distances(first[:0], second[:0]).shape == (0,)
    assert squared_distances(first[:, :0], second[:, :0]).tolist() == [0.0] * 9
