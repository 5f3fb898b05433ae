"""Augmentation of whole batches as tensors, from a table of random numbers (see `reid.data.augmentation.random_numbers`).

The table is made on the CPU wherever the images are, so a seed gives the same batch on every device. Where a step has
two forms, one visits the images of a batch one after the other, which is faster on a CPU, where a single image stays in
the cache; the other takes them all at once, for a GPU. Both give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reid.data.augmentation import random_numbers as draws
from reid.data.augmentation.jitter import NO_JITTER, Jitter, jitter_colors
from reid.data.augmentation.policy import apply_policy
from reid.data.images.normalization import normalize


def move(images: Tensor, mirrored: np.ndarray, corners: np.ndarray, pad: int) -> Tensor:
    """Mirror images left to right, pad every side with `pad` black pixels and cut a window of the old size.

    images: (B, 3, H, W) uint8. mirrored: (B,) bool. corners: (B, 2) int64 in 0..2 pad, row and column in the padded
    image of the window's upper left pixel. Black is 0, so this belongs before the normalization.
    """
    if images.device.type == "cpu":
        return _move_each(images, mirrored, corners - pad)
    return _move_all(images, mirrored, corners - pad)


def _move_each(images: Tensor, mirrored: np.ndarray, shift: np.ndarray) -> Tensor:
    height, width = images.shape[2:]
    source = images.numpy()
    target = np.zeros_like(source) if shift.any() else np.empty_like(source)
    # A window beyond the image is as black as one beside it.
    for number, (down, right) in enumerate(shift.clip([-height, -width], [height, width]).tolist()):
        # torch mirrors bytes six times as fast as NumPy, which copies windows twice as fast.
        image = images[number].flip(2).numpy() if mirrored[number] else source[number]
        rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
        target[number, :, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = image[
            :, rows, columns
        ]
    return torch.from_numpy(target)


def _move_all(images: Tensor, mirrored: np.ndarray, shift: np.ndarray) -> Tensor:
    count, channels, height, width = images.shape
    device = images.device
    down, right = torch.from_numpy(shift).to(device).unbind(1)
    turned = torch.from_numpy(mirrored).to(device)[:, None]
    rows = torch.arange(height, device=device) + down[:, None]
    columns = torch.arange(width, device=device) + right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    columns = torch.where(turned, width - 1 - columns, columns).clamp_(0, width - 1)
    rows = rows.clamp_(0, height - 1)
    batch = torch.arange(count, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]] * inside[:, None]


def boxes(
    table: np.ndarray,
    size: tuple[int, int],
    probability: float,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
) -> np.ndarray:
    """The rectangles of Random Erasing (Algorithm 1 of Zhong et al., AAAI 2020), one for each chosen image.

    table: (B, COLUMNS) of `reid.data.augmentation.random_numbers`. size: height and width of the images. The rectangle's share of the image
    and its height / width are uniform in `area` and `aspect`, drawn again while it does not fit; an image for which 20
    draws fail stays whole. Returns (B, 4) int64: top, left, height, width, all 0 where nothing is erased.
    """
    height, width = size
    pixels = (area[0] + (area[1] - area[0]) * table[:, draws.AREA]) * (height * width)
    ratio = aspect[0] + (aspect[1] - aspect[0]) * table[:, draws.ASPECT]
    tall, wide = np.sqrt(pixels * ratio).round().clip(1), np.sqrt(pixels / ratio).round().clip(1)
    fits = (tall < height) & (wide < width)
    first = (np.arange(len(table)), fits.argmax(axis=1))
    tall, wide = tall[first], wide[first]
    place = table[:, draws.PLACE]
    top, left = np.floor(place[:, 0] * (height - tall + 1)), np.floor(place[:, 1] * (width - wide + 1))
    chosen = (table[:, draws.ERASE] < probability) & fits.any(axis=1)
    return np.where(chosen[:, None], np.stack([top, left, tall, wide], axis=1), 0).astype(np.int64)


def erase(images: Tensor, rectangles: np.ndarray) -> Tensor:
    """Set one rectangle of each image to 0, in place.

    images: (B, C, H, W) float, normalized, where 0 is the mean of the data set. rectangles: (B, 4) of `boxes`.
    """
    if images.device.type == "cpu":
        for image, (top, left, height, width) in zip(images.numpy(), rectangles.tolist(), strict=True):
            image[:, top : top + height, left : left + width] = 0
        return images
    return _erase_all(images, rectangles)


def _erase_all(images: Tensor, rectangles: np.ndarray) -> Tensor:
    top, left, height, width = torch.from_numpy(rectangles).to(images.device).view(-1, 4, 1).unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    inside_rows, inside_columns = (row >= top) & (row < top + height), (column >= left) & (column < left + width)
    return images.masked_fill_(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)


def augment(
    images: Tensor,
    table: np.ndarray,
    *,
    flip: float,
    pad: int,
    erasing: float,
    mean: Sequence[float],
    std: Sequence[float],
    jitter: Jitter = NO_JITTER,
    policy: str = "none",
) -> Tensor:
    """Policy, flip, pad-crop, color jitter, normalization and erasing of a training batch, in this order.

    images: (B, 3, H, W) uint8. table: (B, COLUMNS) of `reid.data.augmentation.random_numbers.draw`. flip, erasing: probabilities, 0 leaves
    the step out; pad: pixels. policy: see `reid.data.augmentation.policy`. Returns float32.
    """
    if policy != "none":
        images = apply_policy(images, policy, table[:, draws.POLICY])
    if flip > 0 or pad > 0:
        corners = np.floor(table[:, draws.CROP] * (2 * pad + 1)).astype(np.int64)
        images = move(images, table[:, draws.FLIP] < flip, corners, pad)
    if jitter.changes:
        images = jitter_colors(images, jitter, table)
    normalized = normalize(images, mean, std)
    if erasing > 0:
        erase(normalized, boxes(table, (images.shape[2], images.shape[3]), erasing))
    return normalized
