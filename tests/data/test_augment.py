"""Batch augmentation against the same thing done image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid.data.augment import augment, erase, flip, normalise, pad_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(1, 256, (64, 3, 32, 16), dtype=torch.uint8, generator=generator(99))


def test_normalise_is_the_formula_per_channel(images):
    wanted = (images.numpy().astype(np.float64) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    result = normalise(images, MEAN, STD)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), wanted, atol=1e-6)


def test_flip_mirrors_whole_images_left_to_right(images):
    flipped = flip(images, 0.5, generator())
    mirror = images.numpy()[..., ::-1]
    kinds = [
        "same" if np.array_equal(new, old) else "mirrored" if np.array_equal(new, turned) else "else"
        for new, old, turned in zip(flipped.numpy(), images.numpy(), mirror, strict=True)
    ]
    assert set(kinds) == {"same", "mirrored"}
    assert 20 <= kinds.count("mirrored") <= 44
    assert torch.equal(flip(images, 0.0, generator()), images)
    np.testing.assert_array_equal(flip(images, 1.0, generator()).numpy(), mirror)


def test_pad_crop_cuts_windows_out_of_the_padded_images(images):
    pad = 3
    cropped = pad_crop(images, pad, generator()).numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    corners = []
    for image, whole in zip(cropped, padded, strict=True):
        found = [
            (top, left)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if np.array_equal(whole[:, top : top + 32, left : left + 16], image)
        ]
        assert len(found) == 1
        corners += found
    tops, lefts = np.array(corners).T
    # every offset occurs in both directions, and they are drawn apart
    assert set(tops) == set(lefts) == set(range(2 * pad + 1))
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.5


def test_no_padding_changes_nothing(images):
    assert torch.equal(pad_crop(images, 0, generator()), images)


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
    images = torch.ones(1000, 1, 128, 64)
    boxes = rectangles(erase(images, 0.5, generator()))
    assert bool((images == 1).all())
    erased = np.array([box for box in boxes if box is not None])
    assert 430 <= len(erased) <= 570
    top, left, height, width = erased.T
    share = height * width / (128 * 64)
    assert 0.018 <= share.min() < 0.05 and 0.35 < share.max() <= 0.41
    assert abs(share.mean() - 0.21) < 0.02  # uniform in [0.02, 0.4], hardly changed by what does not fit
    assert 0.27 <= (height / width).min() < 0.5 and 3.0 < (height / width).max() <= 3.7
    # the place is uniform among those that fit: relative positions cover 0 to 1 evenly
    assert abs((top / (128 - height)).mean() - 0.5) < 0.04 and abs((left / (64 - width)).mean() - 0.5) < 0.04
    assert (top == 0).any() and (top + height == 128).any() and (left == 0).any() and (left + width == 64).any()


def test_erase_leaves_alone_what_no_rectangle_fits():
    images = torch.ones(8, 3, 16, 16)
    assert torch.equal(erase(images, 1.0, generator(), area=(1.5, 2.0), aspect=(1.0, 1.0)), images)
    assert torch.equal(erase(images, 0.0, generator()), images)


def test_a_square_of_known_area_is_erased():
    boxes = rectangles(erase(torch.ones(16, 3, 20, 20), 1.0, generator(), area=(0.25, 0.25), aspect=(1.0, 1.0)))
    assert all(box is not None and box[2:] == (10, 10) for box in boxes)


def test_augment_without_any_step_is_the_normalisation(images):
    plain = augment(images, flip=0, pad=0, erasing=0, mean=MEAN, std=STD, generator=generator())
    assert torch.equal(plain, normalise(images, MEAN, STD))


def test_augment_chains_the_steps(images):
    before = images.clone()
    chained = generator(5)
    wanted = erase(normalise(pad_crop(flip(images, 0.5, chained), 2, chained), MEAN, STD), 0.7, chained)
    result = augment(images, flip=0.5, pad=2, erasing=0.7, mean=MEAN, std=STD, generator=generator(5))
    assert torch.equal(result, wanted) and torch.equal(images, before)
    other = augment(images, flip=0.5, pad=2, erasing=0.7, mean=MEAN, std=STD, generator=generator(6))
    assert not torch.equal(result, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batch(images):
    options = {"flip": 0.5, "pad": 2, "erasing": 0.7, "mean": MEAN, "std": STD}
    on_gpu = augment(images.cuda(), generator=generator(5), **options)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), augment(images, generator=generator(5), **options))
