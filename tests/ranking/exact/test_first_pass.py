from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from exact_reference import KINDS, SIZES, drawn

from reid.errors import InputError
from reid.ranking import arrays
from reid.ranking.exact import first_pass
from reid.ranking.exact.first_pass import (
    COLUMNS,
    LOW,
    Approximation,
    PreparedRows,
    approximate,
    integers_exact,
    prepare_rows,
)
from reid.ranking.exact.gallery_rows import RowSource, mean_row
from reid.ranking.exact.options import ComparisonOptions


@pytest.fixture
def _fresh_measurements() -> Iterator[None]:
    """What is known of the machine, forgotten before and after."""
    for remembered in (first_pass.integers_exact, first_pass.is_int8_faster):
        remembered.cache_clear()
    yield
    for remembered in (first_pass.integers_exact, first_pass.is_int8_faster):
        remembered.cache_clear()


def needs_integers() -> None:
    if not integers_exact(64):  # whatever the width: that would take as long as the tests
        pytest.skip("this machine has no exact 8-bit products")


def both(
    query: np.ndarray, gallery: np.ndarray, *, integers: bool, center: Any = None
) -> tuple[PreparedRows, PreparedRows]:
    center = mean_row(RowSource(query, "euclidean")) if center is None else center
    return (
        prepare_rows(query, center, side="query", integers=integers),
        prepare_rows(gallery, center, side="gallery", integers=integers),
    )


def as_whole(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers as Python integers over 2^shift, without any rounding."""
    fractions = [float(x).as_integer_ratio() for x in rows.reshape(-1)]
    shift = max(below.bit_length() - 1 for _, below in fractions)
    whole = [above << (shift - below.bit_length() + 1) for above, below in fractions]
    return np.array(whole, dtype=object).reshape(rows.shape), shift


def share_of_bound(found: Approximation, asked: PreparedRows, query: np.ndarray, gallery: np.ndarray) -> float:
    """The largest error of any pair over its half width; the truth in integers of any size."""
    whole, shift = as_whole(np.concatenate([query, gallery]))
    values, norms = as_whole(np.concatenate([arrays.to_numpy(found.values).reshape(-1), asked.squared]))
    shift = 2 * shift - norms
    worst = 0.0
    for i, row in enumerate(whole[: len(query)]):
        for j, other in enumerate(whole[len(query) :]):
            # distance * 2^(2 shift) and (value + |q|^2) * 2^norms, brought to one power of two
            distance = int(((row - other) ** 2).sum())
            value = int(values[i * len(gallery) + j] + values[len(found.values) * len(gallery) + i])
            error = abs((value << shift) - distance) if shift >= 0 else abs(value - (distance << -shift))
            total = norms + max(shift, 0)
            share = error / 2**total if error.bit_length() < 1000 + total else float("inf")
            worst = max(worst, share / float(found.half_width[i]))
    return worst


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "integers"])
@pytest.mark.parametrize("width", [1, 3, 37, 130, 1025])
@pytest.mark.parametrize("kind", [*KINDS, *SIZES])
def test_the_bound_is_a_bound(kind: str, width: int, integers: bool) -> None:
    if integers:
        needs_integers()
    rows = 12 if width < 1000 else 4
    query, gallery = drawn(kind, rows, rows + 1, width)
    asked, tile = both(query, gallery, integers=integers)
    assert (tile.limbs is not None) == integers
    assert share_of_bound(approximate(asked, tile, {}), asked, query, gallery) <= 1


@pytest.mark.parametrize("kind", ["random", "lengths", "heavy", "offset"])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("integers", [False, True], ids=["float32", "integers"])
def test_the_bound_covers_other_types(kind: str, dtype: type[np.floating], integers: bool) -> None:
    if integers:
        needs_integers()
    query, gallery = drawn(kind, 9, 10, 64, dtype=dtype)
    asked, tile = both(query, gallery, integers=integers)
    assert share_of_bound(approximate(asked, tile, {}), asked, query, gallery) <= 1


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "integers"])
def test_the_bound_holds_over_many_pairs(integers: bool) -> None:
    if integers:
        needs_integers()
    worst = 0.0
    for kind in ("random", "clustered", "heavy", "lengths"):
        query, gallery = drawn(kind, 150, 400, 257)
        asked, tile = both(query, gallery, integers=integers)
        found = approximate(asked, tile, {})
        wide = gallery.astype(np.longdouble)
        true = np.stack([((wide - row) ** 2).sum(axis=1) for row in query.astype(np.longdouble)])
        error = np.abs(found.values + asked.squared[:, None].astype(np.longdouble) - true)
        worst = max(worst, float((error / found.half_width[:, None]).max()))
    # Errors of random signs stay far below the worst case; a bound that nothing comes near would be no use either.
    assert (0.005 if integers else 0.002) < worst <= 1


def test_fewer_columns_make_the_bound_closer_and_it_still_holds() -> None:
    query, gallery = drawn("random", 4, 5, 1025)
    asked, tile = both(query, gallery, integers=False)
    widths = []
    for columns in (64, 128, COLUMNS):
        found = approximate(asked, tile, {}, columns=columns)
        assert share_of_bound(found, asked, query, gallery) <= 1
        widths.append(float(found.half_width.max()))
    assert widths[0] < widths[1] < widths[2] / 4


def test_float32_errors_that_pile_up_stay_within_the_bound() -> None:
    # Products of one sign, each a little above half a step of the sum so far, in one or in every lane of the library.
    shares = []
    for lanes in (1, 8, 16, 64, 256):
        row = np.full(COLUMNS, np.sqrt(0.5001 * 2.0**-23), dtype=np.float32)
        row[:lanes] = 1.0
        query, gallery = np.tile(row, (3, 1)), np.tile(-row, (5, 1))
        asked, tile = both(query, gallery, integers=False, center=np.zeros(COLUMNS, np.float32))
        shares.append(share_of_bound(approximate(asked, tile, {}), asked, query, gallery))
    assert 0 < max(shares) <= 1


# Rows as badly off as quantization allows, lying so that nothing cancels. The first number sets the scale to 1.
SIZE = 64
SIGNS = np.where(np.random.default_rng(0).random(SIZE) < 0.5, -1.0, 1.0)


def steps(high: float, low: float) -> np.ndarray:
    """A row of scale 1 with SIGNS * (high + low / 254) behind the number that sets the scale."""
    row = SIGNS * (high + low / LOW)
    row[0] = 127.0 * SIGNS[0]
    return row[None].astype(np.float32)


@pytest.mark.parametrize(
    ("query", "gallery"),
    [
        (steps(20, 0.499), steps(127, 0)),  # the query leaves out half a step everywhere, along the gallery row
        (steps(127, 0), steps(20, 0.499)),  # the other way round
        (steps(20, 126.0), steps(20, 126.0)),  # lows as large as can be, whose product is left out
        (steps(20, 126.499), steps(20, 126.499)),  # all three at once
    ],
    ids=["query", "gallery", "lows", "all"],
)
@pytest.mark.parametrize("opposite", [False, True])
def test_quantization_comes_near_its_bound(query: np.ndarray, gallery: np.ndarray, opposite: bool) -> None:
    needs_integers()
    gallery = -gallery if opposite else gallery
    asked, tile = both(query, gallery, integers=True, center=np.zeros(SIZE, np.float32))
    share = share_of_bound(approximate(asked, tile, {}), asked, query, gallery)
    assert 0.9 < share <= 1


def worst_width(number: int) -> int:
    """The width at which rows of constant size have highs of `number` + 1/2, which rounding makes longer."""
    return int((first_pass._MAX_HIGH_LENGTH / (number + 0.499)) ** 2)


@pytest.mark.parametrize("width", [1, 2, 387, 388, 513, 2049, worst_width(30), worst_width(10), 1 << 16])
def test_int32_holds_every_sum(width: int) -> None:
    rng = np.random.default_rng(width)
    ones = np.ones(width, np.float32)
    rows = np.stack(
        [ones, -ones, ones * np.float32(1e15), np.where(rng.random(width) < 0.5, -1, 1), rng.normal(size=width)]
    )
    rows = rows.astype(np.float32)
    asked, tile = both(rows, rows, integers=True, center=np.zeros(width, np.float32))
    highs, lows = asked.limbs[:, :width].astype(np.int64), asked.limbs[:, width:].astype(np.int64)
    assert np.array_equal(tile.limbs[:, width:], highs) and np.array_equal(tile.limbs[:, :width], lows)
    largest = LOW * np.abs(highs) @ np.abs(highs).T + 2 * np.abs(highs) @ np.abs(lows).T
    assert largest.max() < 2**31
    # No room is given away where the numbers fit anyway.
    assert highs.max() == 127 or largest.max() > 2**30
    # And the product is that of the integers.
    if width < 10_000 and integers_exact(64):
        buffers: dict[str, Any] = {}
        approximate(asked, tile, buffers)
        expected = LOW * highs @ highs.T + highs @ lows.T + lows @ highs.T
        assert np.array_equal(buffers["mixed"].reshape(expected.shape), expected)


def test_wider_rows_take_float32() -> None:
    assert not integers_exact((1 << 16) + 8) and not first_pass.is_int8_faster((1 << 16) + 8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("integers", [False, True], ids=["float32", "integers"])
def test_tensors_are_prepared_as_arrays_are(dtype: str, integers: bool) -> None:
    query, gallery = drawn("lengths", 20, 24, 40, dtype=getattr(np, dtype))
    center = np.linspace(-1, 1, 40, dtype=np.float32)
    of_arrays = both(query, gallery, integers=integers, center=center)
    tensors = [torch.from_numpy(part) for part in (query, gallery)]
    of_tensors = both(*tensors, integers=integers, center=torch.from_numpy(center))
    for plain, other in zip(of_arrays, of_tensors, strict=True):
        assert np.array_equal(plain.values, arrays.to_numpy(other.values))
        np.testing.assert_allclose(other.squared, plain.squared, rtol=1e-14)
        if integers:
            assert np.array_equal(plain.limbs, arrays.to_numpy(other.limbs))
            np.testing.assert_allclose(other.residual, plain.residual, rtol=1e-5)
            np.testing.assert_allclose(other.low, plain.low, rtol=1e-5)


PER_BACKEND = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # since PyTorch 2.9


def float32_settings() -> list[str]:
    """The precision of float32 products, whichever way this version of PyTorch sets it."""
    backends: Any = torch.backends
    if PER_BACKEND:
        return [kind.matmul.fp32_precision for kind in (backends.cuda, backends.mkldnn)]
    return [torch.get_float32_matmul_precision()]


@pytest.mark.parametrize("api", ["one setting", "one a backend"])
def test_float32_products_are_float32_ones_whatever_is_allowed(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # With these settings PyTorch may multiply in TF32 or bfloat16, on processors as on GPUs.
    if api == "one a backend" and not PER_BACKEND:
        pytest.skip("this version of PyTorch has one setting for all backends")
    query, gallery = drawn("random", 200, 300, 512)
    tensors = [torch.from_numpy(part) for part in (query, gallery)]
    asked, tile = both(*tensors, integers=False, center=torch.zeros(512))
    seen: list[str] = []
    multiply = torch.matmul

    def watched(*sides: Any, **options: Any) -> Any:
        seen.extend(float32_settings())
        return multiply(*sides, **options)

    monkeypatch.setattr(torch, "matmul", watched)
    backends: Any = torch.backends
    before, settings = torch.get_float32_matmul_precision(), float32_settings()
    try:
        if api == "one setting":
            torch.set_float32_matmul_precision("medium")
        else:
            backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision = "tf32", "bf16"
        allowed = float32_settings()
        found = approximate(asked, tile, {})
        assert float32_settings() == allowed != settings
    finally:
        torch.set_float32_matmul_precision(before)
        if PER_BACKEND:
            backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision = settings
    assert seen and set(seen) <= {"ieee", "highest"}
    true = ((query.astype(np.float64)[:, None] - gallery) ** 2).sum(axis=2) - asked.squared[:, None]
    assert (np.abs(arrays.to_numpy(found.values) - true) <= found.half_width[:, None]).all()


class OneSetting:
    """A backend as it was before PyTorch 2.9."""


def test_versions_without_a_setting_per_backend_use_the_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", OneSetting(), raising=False)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", seen.append)
    out = torch.empty(2, 2)
    arrays.matmul(torch.eye(2), torch.eye(2), out)
    assert seen == ["highest", "medium"] and torch.equal(out, torch.eye(2))


def saturating(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Products of 8-bit integers by older instructions: one side made positive, sums of two cut to 16 bits."""
    sides = first.int() + 128, second.int()
    pairs = [sides[0][:, i::2, None] * sides[1][None, i::2] for i in (0, 1)]
    found = (pairs[0] + pairs[1]).clamp(-(2**15), 2**15 - 1).sum(dim=1) - 128 * sides[1].sum(dim=0)
    found = found.int()
    return found if out is None else out.copy_(found)


def off_by_one(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    found = (first.double() @ second.double()).int()
    found[-1, -1] += 1
    return found if out is None else out.copy_(found)


def missing(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    raise RuntimeError("no such product")


@pytest.mark.usefixtures("_fresh_measurements")
@pytest.mark.parametrize("product", [saturating, off_by_one, missing])
def test_wrong_products_are_noticed(product: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_int_mm", product)
    query = drawn("random", 4, 4, 16)[0]
    assert not first_pass.is_int8_faster(16)
    assert not ComparisonOptions(first_pass="auto").uses_integers(query)
    with pytest.raises(InputError, match=r"8-bit integer products of rows of 16 numbers are missing or not exact"):
        ComparisonOptions(first_pass="integers").uses_integers(query)
    assert not ComparisonOptions(first_pass="float32").uses_integers(query)


@pytest.mark.usefixtures("_fresh_measurements")
def test_a_version_of_torch_without_them_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_int_mm")
    assert not first_pass.is_int8_faster(16)


def test_nothing_to_compare() -> None:
    query, gallery = drawn("random", 3, 4, 8)
    for integers in (False, True):
        for rows, others in ((query[:0], gallery), (query, gallery[:0])):
            asked, tile = both(rows, others, integers=integers, center=np.zeros(8, np.float32))
            found = approximate(asked, tile, {})
            assert found.values.shape == (len(rows), len(others)) and len(found.half_width) == len(rows)


def test_the_given_rows_stay_as_they_were() -> None:
    query, gallery = drawn("random", 3, 4, 8)
    before = query.copy(), gallery.copy()
    for convert in (np.asarray, torch.from_numpy):
        given = [convert(part) for part in (query, gallery)]
        both(*given, integers=True, center=convert(np.zeros(8, np.float32)))
    assert np.array_equal(query, before[0]) and np.array_equal(gallery, before[1])
