"""The random numbers of an image depend on the seed and the image only, and are uniform and uncorrelated."""

from __future__ import annotations

import numpy as np

from reid.data.augmentation.random_numbers import COLUMNS, random_table, times_seen


def test_numbers_do_not_depend_on_the_batch():
    whole = random_table(3, range(50), [0] * 50)
    assert whole.shape == (50, COLUMNS)
    np.testing.assert_array_equal(random_table(3, [41, 7], [0, 0]), whole[[41, 7]])
    np.testing.assert_array_equal(random_table(3, [7, 7], [0, 1])[0], whole[7])


def test_numbers_are_those_of_philox_at_the_counter_of_the_image():
    bits = np.random.Philox(key=11, counter=[0, 2, 9, 0])
    np.testing.assert_array_equal(random_table(11, [9], [2])[0], np.random.Generator(bits).random(COLUMNS))


def test_seed_image_and_time_each_change_all_numbers():
    given = [
        random_table(seed, [row], [time])
        for seed, row, time in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**62, 0, 0))
    ]
    for first, one in enumerate(given):
        for other in given[:first]:
            assert not np.isclose(one, other, atol=1e-9).any()


def test_numbers_are_uniform_and_uncorrelated():
    numbers = random_table(0, range(4000), [0] * 4000)
    assert numbers.min() >= 0 and numbers.max() < 1
    # standard errors: 1/sqrt(12 * 4000) = 0.0046 of the mean, 1/sqrt(4000) = 0.016 of a correlation
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(numbers.T) - np.eye(COLUMNS)).max() < 0.08
    assert np.abs([np.corrcoef(numbers[1:, k], numbers[:-1, k])[0, 1] for k in range(COLUMNS)]).max() < 0.08


def test_times_are_counted_over_batches():
    seen: dict[int, int] = {}
    assert times_seen([4, 5, 4], seen) == [0, 0, 1]
    assert times_seen([6, 4, 5], seen) == [0, 2, 1]
