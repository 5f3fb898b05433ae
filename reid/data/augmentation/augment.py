"""Augmentation of whole batches as tensors, from a table of random numbers.

The table (see `reid.data.augmentation.random_numbers`) is generated on the CPU wherever the images are, so a seed gives
the same batch on every device. Steps with two implementations process the images one by one on a CPU, where a single
image stays in the cache, and all at once on a GPU. Both give the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid.data.augmentation import random_numbers
from reid.data.augmentation.jitter import NO_JITTER, Jitter, jitter_colors
from reid.data.augmentation.policy import apply_policy
from reid.data.images.normalization import normalize


@dataclass(frozen=True)
class Augmentation:
    """How training images are augmented and normalized.

    Attributes:
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].
        flip: Probability of mirroring an image left to right.
        pad: Black pixels added on every side before a random crop of the original size.
        erasing: Probability of Random Erasing.
        jitter: Strength of the color jitter.
        policy: One of `reid.data.augmentation.policy.POLICIES`, or "none".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: float = 0.0
    pad: int = 0
    erasing: float = 0.0
    jitter: Jitter = NO_JITTER
    policy: str = "none"


def augment(images: Tensor, table: np.ndarray, options: Augmentation) -> Tensor:
    """Apply policy, flip, pad-crop, color jitter, normalization and erasing to a training batch, in this order.

    Args:
        images: (B, 3, H, W) uint8; not modified.
        table: (B, COLUMNS) of `reid.data.augmentation.random_numbers.random_table`.
        options: What to apply.

    Returns:
        (B, 3, H, W) float32, normalized.
    """
    if options.policy != "none":
        images = apply_policy(images, options.policy, table[:, random_numbers.POLICY])
    if options.flip > 0 or options.pad > 0:
        corners = np.floor(table[:, random_numbers.CROP] * (2 * options.pad + 1)).astype(np.int64)
        images = flip_and_crop(images, table[:, random_numbers.FLIP] < options.flip, corners, options.pad)
    if options.jitter.enabled:
        images = jitter_colors(images, options.jitter, table)
    normalized = normalize(images, options.mean, options.std)
    if options.erasing > 0:
        erase(normalized, erasing_boxes(table, (images.shape[2], images.shape[3]), options.erasing))
    return normalized


def flip_and_crop(images: Tensor, flipped: np.ndarray, corners: np.ndarray, pad: int) -> Tensor:
    """Mirror images left to right, pad every side with black pixels and crop a window of the original size.

    Black is 0 in the pixel values, so this comes before the normalization.

    Args:
        images: (B, 3, H, W) uint8; not modified.
        flipped: (B,) bool, the images to mirror.
        corners: (B, 2) int64 in 0..2 pad, row and column of the window's upper left pixel in the padded image.
        pad: Pixels added on every side.

    Returns:
        (B, 3, H, W) uint8.
    """
    if images.device.type == "cpu":
        return _flip_and_crop_each(images, flipped, corners - pad)
    return _flip_and_crop_batch(images, flipped, corners - pad)


def _flip_and_crop_each(images: Tensor, flipped: np.ndarray, shift: np.ndarray) -> Tensor:
    height, width = images.shape[2:]
    source = images.numpy()
    target = np.zeros_like(source) if shift.any() else np.empty_like(source)
    # A window entirely outside the image is black, however far away it is.
    for number, (down, right) in enumerate(shift.clip([-height, -width], [height, width]).tolist()):
        # torch mirrors bytes six times as fast as NumPy, which copies windows twice as fast.
        image = images[number].flip(2).numpy() if flipped[number] else source[number]
        rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
        target[number, :, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = image[
            :, rows, columns
        ]
    return torch.from_numpy(target)


def _flip_and_crop_batch(images: Tensor, flipped: np.ndarray, shift: np.ndarray) -> Tensor:
    count, channels, height, width = images.shape
    device = images.device
    down, right = torch.from_numpy(shift).to(device).unbind(1)
    mirror = torch.from_numpy(flipped).to(device)[:, None]
    rows = torch.arange(height, device=device) + down[:, None]
    columns = torch.arange(width, device=device) + right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    columns = torch.where(mirror, width - 1 - columns, columns).clamp_(0, width - 1)
    rows = rows.clamp_(0, height - 1)
    batch = torch.arange(count, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]] * inside[:, None]


def erasing_boxes(
    table: np.ndarray,
    size: tuple[int, int],
    probability: float,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
) -> np.ndarray:
    """Choose the rectangles of Random Erasing (Algorithm 1 of Zhong et al., AAAI 2020).

    An image stays whole if 20 sampled rectangles do not fit.

    Args:
        table: (B, COLUMNS) of `reid.data.augmentation.random_numbers.random_table`.
        size: Height and width of the images in pixels.
        probability: Probability that an image is erased.
        area: Range of the rectangle's fraction of the image area, uniformly sampled.
        aspect: Range of its height / width, uniformly sampled.

    Returns:
        (B, 4) int64: top, left, height, width; all 0 where nothing is erased.
    """
    height, width = size
    pixels = (area[0] + (area[1] - area[0]) * table[:, random_numbers.AREA]) * (height * width)
    ratio = aspect[0] + (aspect[1] - aspect[0]) * table[:, random_numbers.ASPECT]
    tall, wide = np.sqrt(pixels * ratio).round().clip(1), np.sqrt(pixels / ratio).round().clip(1)
    fits = (tall < height) & (wide < width)
    first = (np.arange(len(table)), fits.argmax(axis=1))
    tall, wide = tall[first], wide[first]
    position = table[:, random_numbers.ERASE_POSITION]
    top, left = np.floor(position[:, 0] * (height - tall + 1)), np.floor(position[:, 1] * (width - wide + 1))
    chosen = (table[:, random_numbers.ERASE] < probability) & fits.any(axis=1)
    return np.where(chosen[:, None], np.stack([top, left, tall, wide], axis=1), 0).astype(np.int64)


def erase(images: Tensor, boxes: np.ndarray) -> Tensor:
    """Set one rectangle of each image to 0, in place.

    Args:
        images: (B, C, H, W) float, normalized, where 0 is the mean of the data set.
        boxes: (B, 4) int64 of `erasing_boxes`.

    Returns:
        `images`.
    """
    if images.device.type == "cpu":
        for image, (top, left, height, width) in zip(images.numpy(), boxes.tolist(), strict=True):
            image[:, top : top + height, left : left + width] = 0
        return images
    return _erase_batch(images, boxes)


def _erase_batch(images: Tensor, boxes: np.ndarray) -> Tensor:
    top, left, height, width = torch.from_numpy(boxes).to(images.device).view(-1, 4, 1).unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    inside_rows, inside_columns = (row >= top) & (row < top + height), (column >= left) & (column < left + width)
    return images.masked_fill_(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)
