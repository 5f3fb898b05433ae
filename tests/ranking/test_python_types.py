"""Lists and tensors instead of arrays: the same results, or one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.ranking import distance_blocks, evaluate, rerank_blocks, top_k
from reid.ranking.protocols.verification import verify
from reid.ranking.reranking.rerank import RerankOptions, rerank_ranking
from reid.records import Features

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(12, 4)).astype(np.float32)
IDENTITIES, CAMERAS = np.arange(12) % 4 + 1, np.arange(12) % 3 + 1


def leaf(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.copy()).requires_grad_()


@pytest.mark.parametrize(
    "convert", [np.ndarray.tolist, leaf, lambda values: torch.from_numpy(values).bfloat16().float()]
)
def test_values_of_any_kind_give_the_same_scores(convert: Any) -> None:
    values = convert(VALUES)
    wide = np.asarray(values.detach() if isinstance(values, torch.Tensor) else values)
    expected = Features(wide, IDENTITIES, CAMERAS)
    given = Features(values, IDENTITIES.tolist(), torch.from_numpy(CAMERAS))
    assert evaluate(given, given).to_json() == evaluate(expected, expected).to_json()
    assert np.array_equal(verify(given, given).distances, verify(expected, expected).distances)
    options = RerankOptions(k1=3, k2=2)
    assert (
        rerank_ranking(given, given, options).hits(0).tolist()
        == rerank_ranking(expected, expected, options).hits(0).tolist()
    )
    assert np.array_equal(top_k(values, values, 3).indices, top_k(wide, wide, 3).indices)
    for blocks in (distance_blocks(values, values), rerank_blocks(values, values, options)):
        assert next(iter(blocks))[1].shape == (12, 12)


def test_bfloat16_is_ranked_by_all_protocols() -> None:
    features = Features(torch.from_numpy(VALUES).bfloat16(), IDENTITIES, CAMERAS)
    wide = Features(features.values.float().numpy(), IDENTITIES, CAMERAS)
    assert np.array_equal(verify(features, features).distances, verify(wide, wide).distances)


def test_other_byte_orders_are_floating_point() -> None:
    swapped = Features(VALUES.astype(">f4"), IDENTITIES, CAMERAS)
    plain = Features(VALUES, IDENTITIES, CAMERAS)
    assert evaluate(swapped, swapped).to_json() == evaluate(plain, plain).to_json()


@pytest.mark.parametrize(
    ("values", "identities", "message"),
    [
        ([[1.0, 2.0], [3.0]], [1, 2], "values: a list that is no array of numbers; are its rows equally long"),
        ([["a", "b"]], [1], "features must be a floating-point"),
        ([[1, 2]], [1], "features must be a floating-point"),
        (None, [1], "values: a NoneType that is no array of numbers"),
        ([[1.0, 2.0]], [1.0], "identities must be 1 integers"),
        ([[1.0, 2.0]], [[1], [2, 3]], "identities: a list that is no array of numbers"),
        ([[1.0, np.nan]], [1], "1 feature rows hold NaN or infinity, the first: 0"),
        (torch.ones(2), [1, 1], "features must be a floating-point"),
    ],
)
def test_what_is_no_matrix_is_refused_in_one_line(values: Any, identities: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Features(values, identities, np.ones(len(identities), dtype=np.int64))


def test_rows_and_labels_as_lists_of_tensors() -> None:
    expected = Features(VALUES, IDENTITIES, CAMERAS)
    given = Features(
        list(leaf(VALUES).unbind()), list(torch.from_numpy(IDENTITIES)), torch.from_numpy(CAMERAS).tolist()
    )
    assert evaluate(given, given).to_json() == evaluate(expected, expected).to_json()


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "datetime64[s]"])
def test_other_types_are_refused(dtype: str) -> None:
    rows = np.ones((2, 4)).astype(np.int64).astype(dtype)
    for given in (rows, torch.ones(2, 4, dtype=torch.complex64)):
        with pytest.raises(InputError, match="must be real numbers"):
            top_k(given, VALUES, 1)


def test_distances_are_squared_and_euclidean_is_their_root() -> None:
    found = top_k(VALUES[:2], VALUES, 3)
    expected = np.linalg.norm(VALUES[:2, None].astype(np.float64) - VALUES[found.indices], axis=2)
    assert np.allclose(found.euclidean, expected) and np.allclose(found.distances, expected**2)


def test_searching_ragged_lists_is_refused() -> None:
    for call in (lambda rows: top_k(rows, VALUES, 1), lambda rows: list(rerank_blocks(rows, VALUES))):
        for rows in ([[1.0], [1.0, 2.0]], None, [1.0, 2.0], [["a"]]):
            with pytest.raises(InputError, match=r"query features: a \w+ that is no \(N, D\) matrix of numbers"):
                call(rows)
