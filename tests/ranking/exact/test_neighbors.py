from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traced import traced

from reid.errors import InputError
from reid.ranking.exact import first_pass
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.neighbors import SelfNeighbors, nearest_and_largest


def literal(values: np.ndarray, k: int) -> SelfNeighbors:
    """Row by row: all exact distances, the row itself first, a stable sort."""
    indices, distances, largest = [], [], []
    for i, row in enumerate(values):
        exact = squared_distances(np.tile(row, (len(values), 1)), values)
        largest.append(exact.max())
        exact[i] = -1.0
        order = np.argsort(exact, kind="stable")[:k]
        indices.append(order)
        distances.append(np.maximum(exact[order], 0))
    return SelfNeighbors(np.array(indices), np.array(distances), np.array(largest))


def agree(found: SelfNeighbors, expected: SelfNeighbors) -> bool:
    return (
        np.array_equal(found.indices, expected.indices)
        and np.array_equal(found.distances, expected.distances)
        and np.array_equal(found.largest, expected.largest)
    )


def drawn(kind: str, rows: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, width))
    if kind == "clustered":
        values = values[rng.integers(0, max(1, rows // 8), rows)] + 0.05 * rng.normal(size=(rows, width))
    if kind == "grid":
        values = rng.integers(0, 2, (rows, width))
    if kind == "copies":
        values = values[rng.integers(0, max(1, rows // 4), rows)]
    if kind == "far":
        values = values * 10.0 ** rng.integers(-3, 4, (rows, 1)) + 100
    if kind == "zero":
        values = np.zeros((rows, width))
    return values.astype(np.float32)


@pytest.fixture(params=[True, False], ids=["integers", "float32"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the first pass, whatever pays on this machine."""
    monkeypatch.setattr(first_pass, "is_int8_faster", lambda width, device="cpu": request.param)


KINDS = ["normal", "clustered", "grid", "copies", "far", "zero"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "width", "k"), [(150, 33, 21), (90, 2, 7), (260, 16, 3), (17, 8, 17), (1, 4, 1)])
def test_every_kind_of_rows_equals_the_literal_search(kind: str, rows: int, width: int, k: int) -> None:
    values = drawn(kind, rows, width, rows)
    expected = literal(values, k)
    for block in (1024, 64, 13):
        assert agree(nearest_and_largest(values, k, block=block), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(2, 60), st.integers(1, 9), st.integers(1, 70))
def test_the_answer_does_not_depend_on_the_block(seed: int, kind: str, rows: int, width: int, block: int) -> None:
    values = drawn(kind, rows, width, seed)
    k = 1 + seed % rows
    assert agree(nearest_and_largest(values, k, block=block), literal(values, k))


@pytest.mark.usefixtures("way")
def test_many_equal_distances_between_different_rows() -> None:
    # Every two rows are 2 apart: the shortlists overflow, and only the index decides.
    values = np.eye(200, dtype=np.float32)
    found = nearest_and_largest(values, 6, block=64)
    assert agree(found, literal(values, 6))
    assert found.indices[100].tolist() == [100, 0, 1, 2, 3, 4] and found.indices[2].tolist() == [2, 0, 1, 3, 4, 5]


def test_ties_that_a_float64_product_does_not_see() -> None:
    # All distances are equal in the fixed order of summation, and off by some 1e-15 in a product.
    values = np.eye(150, dtype=np.float32) + np.float32(0.1)
    assert agree(nearest_and_largest(values, 7), literal(values, 7))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(5))
def test_farthest_rows_closer_than_float32_can_tell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.zeros((50, 40), dtype=np.float32)
    values[:, 10:] = 0.01 * rng.normal(size=(50, 30))
    far = rng.choice(50, 10, replace=False)
    values[far, range(10)] = 100 + np.arange(10, dtype=np.float32) * 2.0**-17
    assert agree(nearest_and_largest(values, 3, block=3), literal(values, 3))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["normal", "clustered", "grid"])
@pytest.mark.parametrize("error", [0.01, 0.5, 3.0])
def test_first_passes_as_wrong_as_their_bound_allows(kind: str, error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    plain = first_pass.approximate

    def wrong(*arguments: Any, **options: Any) -> first_pass.Approximation:
        found = plain(*arguments, **options)
        values = found.values + error * rng.choice([-1, 1], found.values.shape).astype(np.float32)
        return first_pass.Approximation(values, found.half_width + 1.001 * error)

    monkeypatch.setattr(first_pass, "approximate", wrong)
    values = drawn(kind, 140, 6, 5)
    assert agree(nearest_and_largest(values, 5, block=20), literal(values, 5))


@pytest.mark.usefixtures("way")
def test_distances_closer_than_float32_can_tell() -> None:
    # Distances from row 0 grow by one part in 2^23 of a coordinate, far below the error of the first pass.
    values = np.eye(60, dtype=np.float32)
    order = np.random.default_rng(0).permutation(59)
    for place, step in enumerate(order, 1):
        values[place, place] = 1 + np.float32(step * 2.0**-23)
    found = nearest_and_largest(values, 60, block=16)
    assert np.array_equal(found.indices[0, 1:], 1 + np.argsort(order))
    assert agree(found, literal(values, 60))


@pytest.mark.usefixtures("way")
def test_more_copies_than_neighbors() -> None:
    values = drawn("normal", 120, 5, 1)
    values[10:90] = values[10]
    # One zero has two patterns of bits.
    values[30:40, 0], values[60:70, 0] = -0.0, 0.0
    assert agree(nearest_and_largest(values, 4, block=32), literal(values, 4))


def test_rows_in_float64_are_compared_in_float64() -> None:
    values = np.array([[0.0, 0.0], [1.0, 0.0], [1.0 - 1e-12, 0.0], [3.0, 4.0]])
    found = nearest_and_largest(values, 4)
    assert found.indices.tolist() == [[0, 2, 1, 3], [1, 2, 0, 3], [2, 1, 0, 3], [3, 1, 2, 0]]
    assert found.largest[2] > found.largest[1] == 20.0 and found.distances[0].tolist()[2:] == [1.0, 25.0]


def test_no_array_of_all_pairs_is_held() -> None:
    values = drawn("clustered", 4000, 8, 2)
    nearest_and_largest(values[:100], 5)
    _, peak = traced(lambda: nearest_and_largest(values, 21, block=256))
    assert peak < 4000 * 4000 * 4 / 4


def test_invalid_arguments_are_errors() -> None:
    values = drawn("normal", 5, 3, 3)
    for k in (0, 6):
        with pytest.raises(InputError, match=rf"k {k}: must be in \[1, 5\]"):
            nearest_and_largest(values, k)
    with pytest.raises(InputError, match="block 0: must be at least 1 row"):
        nearest_and_largest(values, 2, block=0)
    values[3, 1] = np.nan
    with pytest.raises(InputError, match="row 3 holds NaN or infinity"):
        nearest_and_largest(values, 2, block=2)
    values[3, 1] = 3e19
    with pytest.raises(InputError, match=r"row 3 has the squared length 9e\+38"):
        nearest_and_largest(values, 2, block=2)
