"""Bounds from 8-bit codes compared with the distances that they bound."""

from __future__ import annotations

import numpy as np
import pytest

from reid.ranking.exact import row_codes
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.row_codes import RowCodes, encode_queries, encode_rows, lower_bounds

WIDTH = 96


def decaying(seed: int, count: int, width: int = WIDTH) -> np.ndarray:
    """Rows of which few directions hold most of the variance, as those of a trained network."""
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    return random.normal(size=(count, width)) * np.exp(-np.arange(width) / 12) @ rotation


def kinds() -> dict[str, np.ndarray]:
    rows = decaying(0, 300)
    one_axis = np.zeros((300, WIDTH))
    one_axis[:, 5] = np.arange(300)
    outlier = rows.copy()
    outlier[7] *= 1e6
    zero = rows.copy()
    zero[::3] = 0
    scattered = rows * np.exp(np.random.default_rng(1).uniform(-40, 3, size=(300, 1)))
    return {
        "plain": rows,
        "far from zero": rows + 1000,
        "zero rows": zero,
        "repeated": rows[np.random.default_rng(1).integers(0, 5, 300)],
        "one direction": one_axis,
        "outlier": outlier,
        "lengths apart": scattered,
        "huge": rows * 2.0**45,
        "tiny": rows * 2.0**-70,
        "below float32": rows * 2.0**-140,
        "float32": rows.astype(np.float32),
        "eighths": np.round(rows * 8) / 8,
    }


def bounds_of(query: np.ndarray, codes: RowCodes, count: int) -> np.ndarray:
    found = np.empty((len(query), count), dtype=np.float32)
    lower_bounds(encode_queries(query, codes), codes, 0, found)
    return found


@pytest.mark.parametrize("kind", kinds())
def test_bound_is_below_the_distance(kind: str) -> None:
    pytest.importorskip("numkong")
    rows = kinds()[kind]
    codes = encode_rows(rows)
    assert codes is not None and codes.integers.shape[1] <= WIDTH // 2
    # Near and far from the rows, on and off the directions that are coded.
    scale = np.abs(rows).max()
    strangers = np.random.default_rng(2).normal(size=(10, WIDTH)) * scale
    query = np.concatenate([rows[:20], rows[:20] + 1e-3 * strangers[[0]], strangers, 0 * strangers[:1]])
    found = bounds_of(query, codes, len(rows))
    for i, row in enumerate(query):
        exact = squared_distances(np.broadcast_to(row, rows.shape), rows)
        assert (found[i] <= exact).all()
    assert len(codes) == 300 and np.isfinite(found).all()


def test_bound_excludes_most_rows() -> None:
    pytest.importorskip("numkong")
    rows = decaying(0, 2000).astype(np.float32)
    codes = encode_rows(rows)
    assert codes is not None
    found = bounds_of(rows[:9], codes, len(rows))
    for i in range(9):
        exact = squared_distances(np.broadcast_to(rows[i], rows.shape), rows)
        assert (found[i] <= np.sort(exact)[9]).sum() < 150
        assert np.median(exact - found[i]) < 0.25 * np.median(exact)


def test_rows_that_do_not_pay() -> None:
    random = np.random.default_rng(0)
    assert encode_rows(random.normal(size=(500, WIDTH))) is None
    assert encode_rows(np.ones((40, WIDTH))) is None
    assert encode_rows(decaying(0, 50) * 2.0**60) is None
    assert encode_rows(decaying(0, 50, 40)) is None
    late = decaying(0, 3 * row_codes._SAMPLE_ROWS)
    late[1] *= 2.0**60  # not in the sample
    assert encode_rows(late) is None


def test_product_that_is_not_exact_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    numkong = pytest.importorskip("numkong")
    assert row_codes.integer_products() is numkong.cdist
    row_codes.integer_products.cache_clear()
    try:
        monkeypatch.setattr(numkong, "cdist", lambda a, b, metric, *, out: out.fill(1))
        assert row_codes.integer_products() is None
    finally:
        row_codes.integer_products.cache_clear()
