"""Color jitter of a batch compared with torchvision's functions, image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from reid.data.augmentation import random_numbers
from reid.data.augmentation.jitter import Jitter, _apply, jitter_colors
from reid.data.augmentation.random_numbers import random_table

STEPS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


@pytest.fixture
def images() -> torch.Tensor:
    batch = torch.randint(0, 256, (48, 3, 16, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    batch[0], batch[1] = 0, 255  # without any color
    batch[2, :] = batch[2, :1]
    return batch


@pytest.mark.parametrize(
    "jitter",
    [Jitter(brightness=0.4), Jitter(contrast=2.0), Jitter(saturation=0.9), Jitter(hue=0.5), Jitter(0.4, 0.3, 0.5, 0.1)],
)
def test_each_image_equals_that_of_torchvision(images, jitter):
    numbers = random_table(7, range(48), [0] * 48)
    result = jitter_colors(images, jitter, numbers)
    orders = list(itertools.permutations(range(4)))
    strength = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    used = set()
    for image, mine, row in zip(images, result, numbers, strict=True):
        expected = image / 255
        order = orders[int(row[random_numbers.ORDER] * 24)]
        for step in order:
            low, high = (-strength[3], strength[3]) if step == 3 else (max(0, 1 - strength[step]), 1 + strength[step])
            if strength[step]:
                factor = low + (high - low) * row[random_numbers.FACTORS][step]
                expected = STEPS[step](expected, factor)
        used.add(order)
        torch.testing.assert_close(mine / 255, expected, rtol=0, atol=2e-5)
    assert len(used) > 15
    assert not torch.allclose(result, images.float(), atol=1)


def test_some_images_keep_their_colors(images):
    numbers = random_table(0, range(48), [0] * 48)
    result = jitter_colors(images, Jitter(brightness=0.5, probability=0.5), numbers)
    same = (result == images).flatten(1).all(1).numpy()
    # the first image is black and stays so
    np.testing.assert_array_equal(same[1:], numbers[1:, random_numbers.JITTER] >= 0.5)
    assert not Jitter().enabled and not Jitter(hue=0.1, probability=0).enabled


def test_all_at_once_is_the_same_as_one_by_one(images):
    factors = np.random.default_rng(0).uniform(0.5, 1.5, (48, 4)) - [0, 0, 0, 1]
    order = np.array([np.random.default_rng(k).permutation(4) for k in range(48)])
    order[::5, 2] = -1
    one_by_one = [_apply(images[k : k + 1].float(), factors[k : k + 1], order[k : k + 1]) for k in range(48)]
    torch.testing.assert_close(_apply(images.float(), factors, order), torch.cat(one_by_one), rtol=1e-5, atol=1e-3)
