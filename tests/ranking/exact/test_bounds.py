from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reid.ranking.exact import bounds
from reid.ranking.exact.distances import squared_distances


def summed_left_to_right(products: np.ndarray) -> np.float32:
    """The order that lets the errors of float32 pile up most."""
    total = np.float32(0)
    for product in products.astype(np.float32):
        total += product
    return total


@pytest.mark.parametrize("terms", [2, 37, 500, 1025])
def test_gamma_is_reached_by_additions_that_all_round_one_way(terms: int) -> None:
    # 1 + x with x a little above half a step of 1 is rounded up to the next step, every time.
    step = 2.0**-23
    row = np.full(terms, np.sqrt(0.5001 * step), dtype=np.float32)
    row[0] = 1.0
    true = sum(Fraction(float(x)) ** 2 for x in row)
    error = float(abs(Fraction(float(summed_left_to_right(row * row))) - true))
    bound = bounds.gamma(terms) * float(true)
    assert 0.9 * (terms - 1) / terms < error / bound <= 1


def test_gamma_gives_up_where_it_does_not_hold() -> None:
    assert bounds.gamma(0) == 0 and bounds.gamma(1) > bounds.U
    assert bounds.gamma(1 << 23) == float("inf") and bounds.gamma(1 << 22) < 0.4


def test_products_below_the_smallest_float32_are_covered() -> None:
    # Each of 1,024 products is 0.49 of the smallest float32 there is, and vanishes.
    row = np.full(1024, np.sqrt(0.49 * 2.0**-149), dtype=np.float32)
    assert summed_left_to_right(row * row) == 0
    true = float((row.astype(np.float64) ** 2).sum())
    assert 0 < 2 * true <= bounds.float32_product(*[float(np.linalg.norm(row.astype(np.float64)))] * 2, 1024)
    # And if the processor flushes everything below 2^-126 to zero.
    assert bounds.float32_product(0.0, 0.0, 1) >= 2.0**-126 * 65536 * 2
    assert bounds.addition_error(0.0, 0.0) >= 2.0**-126 * 2


def moved_distance(query: np.ndarray, gallery: np.ndarray, centre: np.ndarray) -> tuple[Fraction, float, float]:
    """Of the rows less `center` in float32: their exact distance, and both lengths."""
    moved = [(row - centre).astype(np.float32).astype(np.float64) for row in (query, gallery)]
    distance = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(*moved, strict=True))
    return Fraction(distance), *(float(np.linalg.norm(row)) for row in moved)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("width", [1, 3, 37, 200])
def test_centering_stays_within_its_bound(width: int, dtype: str) -> None:
    rng = np.random.default_rng(width)
    for size, offset in ((1.0, 0.0), (1.0, 1000.0), (1e-3, 7.0), (1e4, 1e4)):
        rows = (offset + size * rng.normal(size=(6, width))).astype(dtype)
        centre = (offset + size * rng.normal(size=width)).astype(np.float32)
        for query, gallery in zip(rows[:3], rows[3:], strict=True):
            distance, *lengths = moved_distance(query, gallery, centre)
            given = Fraction(float(squared_distances(query[None], gallery[None])[0]))
            assert abs(distance - given) <= Fraction(bounds.centered_distance(*lengths, width)), (size, offset)


def test_the_bound_of_centering_is_nearly_reached() -> None:
    # Opposite rows whose entries all lie just past the middle between two float32 numbers, and are rounded outwards.
    entry = 1.0 + (0.5 + 1e-6) * 2.0**-23
    query, gallery = np.full(64, entry), np.full(64, -entry)
    distance, *lengths = moved_distance(query, gallery, np.zeros(64, np.float32))
    given = Fraction(float(squared_distances(query[None], gallery[None])[0]))
    used = float(abs(distance - given)) / bounds.centered_distance(*lengths, 64)
    assert 0.9 < used <= 1


def test_adding_the_length_is_within_its_bound_and_may_come_near_it() -> None:
    rng = np.random.default_rng(5)
    worst = 0.0
    for _ in range(3000):
        q, g = rng.uniform(1, 1.1, 2)
        product, squared = np.float32(-2 * q * g * rng.choice([-1.0, 1.0])), g * g
        error = abs(float(product + np.float32(squared)) - (float(product) + squared))
        worst = max(worst, error / bounds.addition_error(q, g))
    assert 0.3 < worst <= 1
