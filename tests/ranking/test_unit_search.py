"""The search for few queries compared with `top_k` and with plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from reid.errors import InputError
from reid.ranking.exact.row_codes import encode_rows
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


def spectral(seed: int, count: int, kind: str = "") -> np.ndarray:
    """Rows of length 1 of which 32 of 96 directions hold most of the variance."""
    rows = np.random.default_rng(seed).normal(size=(count, 96)) * np.exp(-np.arange(96) / 8)
    if kind == "tied":
        rows = rows[np.random.default_rng(seed).integers(0, count // 8, count)]
    if kind == "close":
        rows = rows[:1] + 1e-6 * rows
    if kind == "signs":  # all at the same distance from many queries
        rows[:, 1:] = 0
    if kind == "mean":
        rows += 3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", ["spread", "tied", "close", "signs", "mean"])
@pytest.mark.parametrize("threads", [1, 2])
def test_codes_do_not_change_the_result(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numkong")
    monkeypatch.setattr("reid.ranking.unit_search.thread_count", lambda: threads)
    if threads > 1:
        monkeypatch.setattr("reid.ranking.unit_search._CODED_ROWS", 500)
        monkeypatch.setattr("reid.ranking.unit_search._BLOCK", 2)
    gallery, query = spectral(0, 3000, kind), spectral(1, 20)
    query[:3], query[3:5] = gallery[:3], units(0, 2, 96)  # equal to a row, and unlike all of them
    parts = [gallery[:1200], gallery[1200:1300], gallery[1300:]]
    codes = [encode_rows(parts[0]), None, encode_rows(parts[2])]
    assert codes[0] is not None and codes[2] is not None
    checked: set[int] = set()
    expected = top_k(query, gallery, 9)
    found = top_k_unit_rows(query, parts, 9, codes=codes, check=lambda rows: checked.update(rows.tolist()))
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert checked >= {*found.indices.ravel().tolist(), *range(1200, 1300)}
    allowed = np.random.default_rng(2).random(3000) < 0.01
    some = top_k_unit_rows(query, parts, 5, codes=codes, allowed=allowed)
    plain = top_k_unit_rows(query, parts, 5, allowed=allowed)
    np.testing.assert_array_equal(some.indices, plain.indices)
    np.testing.assert_array_equal(some.distances, plain.distances)


def test_codes_leave_few_rows_to_read() -> None:
    pytest.importorskip("numkong")
    gallery = spectral(0, 5000)
    read: list[int] = []
    top_k_unit_rows(gallery[:1], [gallery], 5, codes=[encode_rows(gallery)], check=lambda rows: read.append(len(rows)))
    assert 0 < sum(read) < 800


def test_without_the_library_codes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = spectral(0, 200)
    expected = top_k_unit_rows(gallery[:3], [gallery], 4)
    monkeypatch.setattr("reid.ranking.unit_search.integer_products", lambda: None)
    found = top_k_unit_rows(gallery[:3], [gallery], 4, codes=[encode_rows(gallery)])
    np.testing.assert_array_equal(found.indices, expected.indices)


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
