from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.io.shards import Shards
from reid.ranking.expansion import augment_gallery, average_queries, expand_queries


def drawn(rows: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, width)) * rng.uniform(0.5, 3.0, (rows, 1))).astype(np.float32)


def literal(query: np.ndarray, gallery: np.ndarray, number: int, alpha: float, *, itself: bool = False) -> np.ndarray:
    """Row by row in float64; `itself`: the query is the gallery row of its number, and no neighbor of itself."""
    unit = gallery.astype(np.float64) / np.linalg.norm(gallery.astype(np.float64), axis=1, keepdims=True)
    expanded = []
    for i, row in enumerate(query.astype(np.float64)):
        row = row / np.linalg.norm(row)
        cosine = unit @ row
        order = [j for j in np.argsort(-cosine, kind="stable") if not (itself and j == i)][:number]
        total = row.copy()
        for j in order:
            total += max(cosine[j], 0.0) ** alpha * unit[j]
        expanded.append(total / np.linalg.norm(total))
    return np.array(expanded)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0, 0.5])
def test_queries_become_weighted_means_with_their_nearest(alpha: float) -> None:
    query, gallery = drawn(9, 6, 0), drawn(40, 6, 1)
    found = expand_queries(query, gallery, neighbors=7, alpha=alpha)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, literal(query, gallery, 7, alpha), atol=1e-6)


def test_average_expansion_is_the_plain_mean() -> None:
    query, gallery = drawn(5, 4, 2), drawn(20, 4, 3)
    np.testing.assert_allclose(average_queries(query, gallery, neighbors=3), literal(query, gallery, 3, 0.0), atol=1e-6)
    # By hand: the mean of (1, 0) and (0, 1) has the direction (1, 1).
    by_hand = average_queries(np.array([[2.0, 0.0]]), np.array([[0.0, 5.0], [0.0, -1.0], [-1.0, 0.0]]), neighbors=1)
    np.testing.assert_allclose(by_hand, [[np.sqrt(0.5), np.sqrt(0.5)]], atol=1e-7)


def test_neighbors_pointing_away_have_no_weight() -> None:
    query, gallery = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.1], [-1.0, -0.2]])
    np.testing.assert_allclose(expand_queries(query, gallery, neighbors=2, alpha=1.0), [[1.0, 0.0]], atol=1e-7)


def test_a_mean_without_direction_leaves_the_row() -> None:
    query, gallery = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[-3.0, -4.0]])
    found = average_queries(query, gallery, neighbors=1)
    np.testing.assert_allclose(found[0], [0.6, 0.8], atol=1e-7)
    assert found[1, 0] < -0.5


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_gallery_rows_become_means_with_their_nearest_others(alpha: float) -> None:
    gallery = drawn(30, 5, 4)
    found = augment_gallery(gallery, neighbors=4, alpha=alpha)
    np.testing.assert_allclose(found, literal(gallery, gallery, 4, alpha, itself=True), atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_duplicates_strengthen_their_row() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    found = augment_gallery(rows, neighbors=2, alpha=0.0)
    expected = np.array([2.6, 0.8]) / np.hypot(2.6, 0.8)
    np.testing.assert_allclose(found[:3], np.tile(expected, (3, 1)), atol=1e-7)


def test_invalid_arguments_are_errors() -> None:
    query, gallery = drawn(3, 4, 5), drawn(6, 4, 6)
    with pytest.raises(InputError, match=r"7 neighbors: must be in \[1, 6\]"):
        expand_queries(query, gallery, neighbors=7)
    with pytest.raises(InputError, match="0 neighbors"):
        average_queries(query, gallery, neighbors=0)
    with pytest.raises(InputError, match=r"6 neighbors: must be in \[1, 5\]"):
        augment_gallery(gallery, neighbors=6)
    with pytest.raises(InputError, match=r"alpha -1.*: the exponent of the cosine must be at least 0"):
        augment_gallery(gallery, neighbors=2, alpha=-1.0)
    with pytest.raises(InputError, match=r"alpha nan.*: the exponent of the cosine must be at least 0"):
        expand_queries(query, gallery, alpha=float("nan"), neighbors=2)
    with pytest.raises(InputError, match="1 of 6 feature rows are zero"):
        augment_gallery(np.where(np.arange(6)[:, None] == 2, 0, gallery), neighbors=2)
    with pytest.raises(InputError, match=r"\(3, 4\).*\(6, 3\)"):
        expand_queries(query, gallery[:, :3], neighbors=2)


@pytest.mark.parametrize("stored", [torch.from_numpy, lambda values: Shards([values[:2], values[2:]])])
def test_tensors_and_shards_become_what_arrays_become(stored: Callable[[np.ndarray], Any]) -> None:
    query, gallery = drawn(6, 5, 8), drawn(20, 5, 9)
    others = stored(query), stored(gallery)
    assert np.array_equal(expand_queries(*others, neighbors=4), expand_queries(query, gallery, neighbors=4))
    assert np.array_equal(augment_gallery(others[1], neighbors=4), augment_gallery(gallery, neighbors=4))


def test_a_single_vector_is_no_matrix() -> None:
    with pytest.raises(InputError, match="two matrices of the same width"):
        expand_queries(drawn(6, 5, 8)[0], drawn(20, 5, 9))
