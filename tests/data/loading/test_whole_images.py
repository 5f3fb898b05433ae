"""Whole images and boxes of them: exact pixels, sizes, batches and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data.loading.whole_images import Box, WholeImage, WholeImageLoader, read_whole_image
from reid.errors import InputError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def saved(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Write a lossless image of noise, which shows every displacement; (height, width, 3) uint8."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10, 5, 40, 25), (5, 25), (10, 40)),
        ((10.4, 4.6, 39.6, 25.4), (5, 25), (10, 40)),
        ((0, 0, 60, 30), (0, 30), (0, 60)),
        ((-0.6, -0.4, 60.7, 30.9), (0, 30), (0, 60)),  # what annotators' rounding does
        ((59, 29, 60, 30), (29, 30), (59, 60)),
    ],
)
def test_a_box_contains_exactly_its_pixels(
    tmp_path: Path, box: Box, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    pixels = saved(tmp_path / "a.png", 30, 60)
    found = read_whole_image(WholeImage(str(tmp_path / "a.png"), box))
    np.testing.assert_array_equal(found.transpose(1, 2, 0), pixels[slice(*rows), slice(*columns)])


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 5, 70, 25), "10, 5, 70, 25 .* extends beyond the image of 60 x 30"),
        ((10, 5, 40, 33), "extends beyond"),
        ((-3, 5, 40, 25), "extends beyond"),
        ((40, 5, 10, 25), "contains no pixel"),
        ((10, 5, 10.3, 25), "contains no pixel"),
        ((10, 5, float("nan"), 25), "a number that is not finite"),
    ],
)
def test_a_box_of_another_image_is_refused(tmp_path: Path, box: Box, words: str) -> None:
    saved(tmp_path / "a.png", 30, 60)
    with pytest.raises(InputError, match=words) as caught:
        read_whole_image(WholeImage(str(tmp_path / "a.png"), box))
    assert "a.png" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("height", "width", "longest", "expected"),
    [
        (300, 400, 100, (75, 100)),
        (400, 300, 100, (100, 75)),
        (75, 100, 100, (75, 100)),
        (30, 60, 1024, (30, 60)),
        (1, 500, 100, (1, 100)),
    ],
)
def test_the_longer_side_is_limited_and_nothing_is_enlarged(
    tmp_path: Path, height: int, width: int, longest: int, expected: tuple[int, int]
) -> None:
    pixels = saved(tmp_path / "a.png", height, width)
    found = read_whole_image(WholeImage(str(tmp_path / "a.png")), longest_side=longest)
    assert found.shape == (3, *expected) and found.dtype == np.uint8
    if (height, width) == expected:
        np.testing.assert_array_equal(found.transpose(1, 2, 0), pixels)


def test_a_box_shrinks_as_its_whole_image_does(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", 300, 400)
    box = WholeImage(str(tmp_path / "a.png"), (100, 100, 200, 150))
    # 400 -> 200 halves everything, though the box alone would have fitted.
    assert read_whole_image(box, longest_side=200).shape == (3, 25, 50)


def test_a_rotation_in_exif_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (40, 20))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_whole_image(WholeImage(str(tmp_path / "a.jpg")))
    assert found.shape == (3, 20, 40)
    assert found[0, :, :16].min() > 240 and found[0, :, 24:].max() < 15


def test_batches_of_neighbors_of_one_size(tmp_path: Path) -> None:
    sizes = [(8, 12), (8, 12), (8, 12), (12, 8), (8, 12)]
    pictures = [saved(tmp_path / f"{i}.png", *size, seed=i) for i, size in enumerate(sizes)]
    images = [WholeImage(str(tmp_path / f"{i}.png")) for i in range(len(sizes))]
    for limit, counts in ((1, [1, 1, 1, 1, 1]), (2, [2, 1, 1, 1]), (9, [3, 1, 1])):
        loader = WholeImageLoader(images, MEAN, STD, "cpu", batch_size=limit)
        batches = list(loader)
        assert [len(batch) for batch in batches] == counts and len(loader) == 5
        singles = [image for batch in batches for image in batch]
        for found, pixels in zip(singles, pictures, strict=True):
            expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.numpy().transpose(1, 2, 0), expected, atol=2e-6)


def test_unreadable_images_are_reported(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    for name, words in (("none.jpg", "no such image"), ("cut.jpg", "unreadable or truncated")):
        with pytest.raises(InputError, match=words):
            list(WholeImageLoader([WholeImage(str(tmp_path / name))], MEAN, STD, "cpu"))
    saved(tmp_path / "a.png", 4, 4)
    with pytest.raises(InputError, match="at least 1 pixel, not 0"):
        read_whole_image(WholeImage(str(tmp_path / "a.png")), longest_side=0)
    with pytest.raises(InputError, match="at least 1"):
        WholeImageLoader([], MEAN, STD, "cpu", batch_size=0)
    Image.new("1", (10_000, 5_001)).save(tmp_path / "huge.png")
    with pytest.raises(InputError, match="above the limit of 50,000,000"):
        read_whole_image(WholeImage(str(tmp_path / "huge.png")))
