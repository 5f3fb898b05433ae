"""The search for few queries compared with `top_k` and with plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from reid.errors import InputError
from reid.ranking.search import top_k
from reid.ranking.unit_search import top_k_unit_rows


def units(seed: int, count: int, width: int, kind: str = "") -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, width))
    if kind == "tied":
        rows = rows[random.integers(0, 7, count)]
    if kind == "close":
        rows = rows[:1] + 1e-6 * rows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", ["spread", "tied", "close"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_top_k(seed: int, kind: str) -> None:
    gallery, query = units(seed, 700, 24, kind), units(seed + 10, 19, 24)
    query[:3] = gallery[:3]
    parts = [gallery[:300], gallery[300:301], gallery[301:]]
    found, expected = top_k_unit_rows(query, parts, 9), top_k(query, gallery, 9)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_only_what_is_allowed() -> None:
    gallery, query = units(0, 200, 8), units(1, 5, 8)
    allowed = np.random.default_rng(2).random(200) < 0.1
    found = top_k_unit_rows(query, [gallery], 500, allowed=allowed)
    distances = ((query[:, None].astype(np.float64) - gallery[None, allowed]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.indices, np.flatnonzero(allowed)[np.argsort(distances, axis=1)])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1), rtol=1e-12)
    assert top_k_unit_rows(query, [gallery], 3, allowed=np.zeros(200, dtype=bool)).indices.shape == (5, 0)


def test_bad_input() -> None:
    gallery, query = units(0, 20, 8), units(1, 2, 8)
    for rows, k, message in (
        (query, 0, "at least 1"),
        (query[:, :4], 1, "queries of 4 dimensions and rows of 8"),
        (2 * query, 1, "length 1"),
        (query * np.nan, 1, "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            top_k_unit_rows(rows, [gallery], k)
