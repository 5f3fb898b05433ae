from __future__ import annotations

import math

import numpy as np
import pytest

from reid.errors import InputError
from reid.ranking import METRICS, distance_blocks, normalize_rows


def gathered(query: np.ndarray, gallery: np.ndarray, metric: str, block: int) -> np.ndarray:
    pieces: list[np.ndarray] = []
    for start, distances in distance_blocks(query, gallery, metric=metric, block=block):
        assert (
            start == sum(len(piece) for piece in pieces) and len(distances) <= block and distances.dtype == np.float32
        )
        pieces.append(distances.copy())
    return np.concatenate(pieces)


def literal(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    result = np.empty((len(query), len(gallery)))
    for i, q in enumerate(query.astype(np.float64)):
        for j, g in enumerate(gallery.astype(np.float64)):
            if metric == "euclidean":
                result[i, j] = math.fsum((q - g) ** 2)
            else:
                result[i, j] = 1 - math.fsum(q * g) / math.sqrt(math.fsum(q * q) * math.fsum(g * g))
    return result


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_blocks_equal_the_literal_distance(metric: str, block: int) -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(7, 12)).astype(np.float32), rng.normal(size=(11, 12)).astype(np.float32)
    np.testing.assert_allclose(gathered(query, gallery, metric, block), literal(query, gallery, metric), atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_numbers_give_exact_squared_distances_in_any_dtype(dtype: type) -> None:
    rng = np.random.default_rng(1)
    query, gallery = (rng.integers(-40, 41, (rows, 30)).astype(np.dtype(dtype)) for rows in (5, 9))
    assert np.array_equal(gathered(query, gallery, "euclidean", 2), literal(query, gallery, "euclidean"))


def test_the_inputs_stay_as_they_were() -> None:
    rng = np.random.default_rng(2)
    query, gallery = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    before = query.copy(), gallery.copy()
    for metric in METRICS:
        for _, distances in distance_blocks(query, gallery, metric=metric, block=2):
            distances[:] = -1
    assert np.array_equal(query, before[0]) and np.array_equal(gallery, before[1])


def test_rows_are_divided_by_their_float64_norm() -> None:
    rng = np.random.default_rng(3)
    # 5,000 rows pass the boundary between two conversions; 1e-25 squared is no float32 any more.
    values = (rng.normal(size=(5000, 6)) * 10.0 ** rng.integers(-25, 15, size=(5000, 1))).astype(np.float32)
    unit = normalize_rows(values)
    assert unit.dtype == np.float32
    wide = values.astype(np.float64)
    expected = wide / np.sqrt((wide**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(unit, expected, rtol=1e-7, atol=1e-30)
    assert np.array_equal(normalize_rows(np.array([[3.0, 4.0]])), np.array([[0.6, 0.8]], dtype=np.float32))


def test_rows_of_zeros_have_no_direction() -> None:
    values = np.ones((4, 2), dtype=np.float32)
    values[[1, 3]] = 0
    with pytest.raises(InputError, match=r"2 of 4 feature rows are zero.* 1, 3"):
        normalize_rows(values)
    with pytest.raises(InputError, match="2 of 4 feature rows are zero"):
        next(distance_blocks(np.ones((1, 2), dtype=np.float32), values, metric="cosine"))
    next(distance_blocks(np.ones((1, 2), dtype=np.float32), values))  # a Euclidean distance to zero is one


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_too_long_for_float32_are_named(dtype: type) -> None:
    values = np.ones((3, 2), dtype=np.dtype(dtype))
    values[2] = 3e19 if dtype is np.float32 else 1e200
    with pytest.raises(InputError, match="feature row 2 has the squared norm"):
        next(distance_blocks(values, np.ones((1, 2), dtype=np.dtype(dtype))))


def test_invalid_arguments_are_errors() -> None:
    two, three = np.ones((4, 2), dtype=np.float32), np.ones((4, 3), dtype=np.float32)
    with pytest.raises(InputError, match=r"\(4, 2\).*\(4, 3\)"):
        next(distance_blocks(two, three))
    with pytest.raises(InputError, match="did you mean euclidean"):
        next(distance_blocks(two, two, metric="euclidian"))
    with pytest.raises(InputError, match="block 0: must be at least 1 query"):
        next(distance_blocks(two, two, block=0))
