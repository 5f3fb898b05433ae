"""Batch augmentation compared with augmentation image by image, and on a GPU compared with the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.data.augmentation import random_numbers
from reid.data.augmentation.augment import (
    Augmentation,
    _erase_batch,
    _flip_and_crop_batch,
    augment,
    erase,
    erasing_boxes,
    flip_and_crop,
)
from reid.data.augmentation.jitter import Jitter, jitter_colors
from reid.data.augmentation.random_numbers import random_table
from reid.data.images.normalization import normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALL_STEPS = Augmentation(MEAN, STD, flip=0.5, pad=2, erasing=0.7, jitter=Jitter(0.3, 0.3, 0.3, 0.1))


def table(count: int, seed: int = 0) -> np.ndarray:
    return random_table(seed, range(count), [0] * count)


def corners(count: int, pad: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2 * pad + 1, (count, 2))


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randint(1, 256, (64, 3, 32, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_is_the_formula_per_channel(images, dtype):
    # more than are normalized together
    many = images.repeat(3, 1, 4, 4).to(dtype)
    expected = (many.numpy().astype(np.float64) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    result = normalize(many, MEAN, STD)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_nothing_is_normalized_to_nothing():
    assert normalize(torch.empty(0, 3, 8, 4, dtype=torch.uint8), MEAN, STD).shape == (0, 3, 8, 4)


@pytest.mark.parametrize("pad", [0, 3, 20])
def test_flip_and_crop_cuts_windows_out_of_the_padded_images(images, pad):
    before = images.clone()
    mirrored, places = np.arange(64) % 3 == 0, corners(64, pad)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    padded[mirrored] = padded[mirrored, :, :, ::-1]
    expected = [
        whole[:, top : top + 32, left : left + 16] for whole, (top, left) in zip(padded, places.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(flip_and_crop(images, mirrored, places, pad).numpy(), np.stack(expected))
    np.testing.assert_array_equal(_flip_and_crop_batch(images, mirrored, places - pad).numpy(), np.stack(expected))
    assert torch.equal(images, before)


def test_flips_and_corners_cover_their_range(images):
    plain = Augmentation(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    flipped = augment(images, table(64), replace(plain, flip=0.5))
    mirrors = (flipped.round().to(torch.uint8) == images.flip(3)).flatten(1).all(1)
    assert 20 <= int(mirrors.sum()) <= 44
    everything = augment(images, table(64), replace(plain, flip=1.0)).round().to(torch.uint8)
    assert torch.equal(everything, images.flip(3))
    one = torch.zeros(400, 3, 9, 9, dtype=torch.uint8)
    one[:, :, 4, 4] = 255
    cropped = augment(one, table(400), replace(plain, pad=2))[:, 0]
    rows, columns = np.divmod(cropped.flatten(1).argmax(1).numpy(), 9)
    # every offset occurs in both directions, independently of each other
    assert set(rows) == set(columns) == set(range(2, 7))
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.2


def rectangles(erased: torch.Tensor) -> list[tuple[int, int, int, int] | None]:
    """(top, left, height, width) of the zeros of each image of a batch without zeros; fails for another shape."""
    found: list[tuple[int, int, int, int] | None] = []
    for image in (erased == 0).numpy():
        assert (image == image[0]).all()
        rows, columns = np.flatnonzero(image[0].any(axis=1)), np.flatnonzero(image[0].any(axis=0))
        if not len(rows):
            found.append(None)
            continue
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert image[0].sum() == height * width
        found.append((int(rows[0]), int(columns[0]), height, width))
    return found


def test_erase_sets_one_rectangle_per_chosen_image_to_zero():
    given = erasing_boxes(table(1000), (128, 64), 0.5)
    found = rectangles(erase(torch.ones(1000, 1, 128, 64), given))
    assert [box or (0, 0, 0, 0) for box in found] == [tuple(box) for box in given.tolist()]
    assert torch.equal(_erase_batch(torch.ones(9, 2, 128, 64), given[:9]), erase(torch.ones(9, 2, 128, 64), given[:9]))
    erased = np.array([box for box in found if box is not None])
    assert 430 <= len(erased) <= 570
    top, left, height, width = erased.T
    share = height * width / (128 * 64)
    assert 0.018 <= share.min() < 0.05 and 0.35 < share.max() <= 0.41
    assert abs(share.mean() - 0.21) < 0.02  # uniform in [0.02, 0.4], hardly changed by what does not fit
    assert 0.27 <= (height / width).min() < 0.5 and 3.0 < (height / width).max() <= 3.7
    # the place is uniform among those that fit: relative positions cover 0 to 1 evenly
    assert abs((top / (128 - height)).mean() - 0.5) < 0.04 and abs((left / (64 - width)).mean() - 0.5) < 0.04
    assert (top == 0).any() and (top + height == 128).any() and (left == 0).any() and (left + width == 64).any()


def test_nothing_is_erased_if_no_rectangle_fits():
    assert not erasing_boxes(table(8), (16, 16), 1.0, area=(1.5, 2.0), aspect=(1.0, 1.0)).any()
    assert not erasing_boxes(table(8), (16, 16), 0.0).any()


def test_a_square_of_known_area_is_erased():
    found = erasing_boxes(table(16), (20, 20), 1.0, area=(0.25, 0.25), aspect=(1.0, 1.0))
    assert (found[:, 2:] == 10).all()


def test_augment_without_any_step_is_the_normalization(images):
    plain = augment(images, table(64), Augmentation(MEAN, STD))
    assert torch.equal(plain, normalize(images, MEAN, STD))


def test_augment_chains_the_steps(images):
    before, numbers, jitter = images.clone(), table(64, 5), Jitter(0.3, 0.3)
    moved = flip_and_crop(
        images, numbers[:, random_numbers.FLIP] < 0.5, (numbers[:, random_numbers.CROP] * 5).astype(np.int64), 2
    )
    expected = erase(normalize(jitter_colors(moved, jitter, numbers), MEAN, STD), erasing_boxes(numbers, (32, 16), 0.7))
    options = Augmentation(MEAN, STD, flip=0.5, pad=2, erasing=0.7, jitter=jitter)
    assert torch.equal(augment(images, numbers, options), expected) and torch.equal(images, before)
    assert not torch.equal(augment(images, table(64, 6), options), expected)


def test_augmentation_does_not_depend_on_the_batch(images):
    numbers = table(64, 5)
    options = replace(ALL_STEPS, policy="randaugment")
    whole = augment(images, numbers, options)
    some = [40, 3, 17]
    assert torch.equal(augment(images[some], numbers[some], options), whole[some])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batch(images):
    on_gpu = augment(images.cuda(), table(64), ALL_STEPS)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), augment(images, table(64), ALL_STEPS), rtol=1e-4, atol=1e-4)
