"""Overlays of what a pooling layer attends to: weights of attention pooling, cluster assignments of VLAD."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from reid.errors import InputError

STRENGTH = 0.65  # Opacity of the largest weight, so that the image stays visible.
GOLDEN_RATIO = 0.618033988749895  # Of the color wheel, so that consecutive clusters have distant colors.


def draw_attention(image: np.ndarray, weights: np.ndarray, *, strength: float = STRENGTH) -> Image.Image:
    """Draw weights in red over the image in gray.

    Args:
        image: (H, W, 3) uint8.
        weights: (h, w) non-negative, upsampled bilinearly and divided by their maximum.
        strength: Opacity of the largest weight, in [0, 1].

    Returns:
        The overlay, W × H pixels.

    Raises:
        InputError: If a shape, dtype or value is invalid.
    """
    _check(image, weights, 2, strength)
    weights = weights.astype(np.float64)
    largest = weights.max()
    relative = _resized(weights / largest if largest > 0 else weights, image.shape[:2], Image.Resampling.BILINEAR)
    return _blend(image, np.array([230.0, 30.0, 30.0]), strength * relative[..., None])


def draw_assignments(
    image: np.ndarray, assignments: np.ndarray, *, strength: float = STRENGTH, ghosts: int = 0
) -> Image.Image:
    """Draw the strongest cluster at each position over the image in gray. Weaker assignments are more transparent.

    Args:
        image: (H, W, 3) uint8.
        assignments: (K, h, w), summing to 1 over the clusters, upsampled by nearest neighbors.
        strength: Opacity of an assignment of 1, in [0, 1].
        ghosts: Number of ghost clusters at the end, which are not drawn.

    Returns:
        The overlay, W × H pixels. A cluster has the same color in every image.

    Raises:
        InputError: If a shape, dtype or value is invalid.
    """
    _check(image, assignments, 3, strength)
    best = assignments.argmax(0)
    weights = np.where(best < len(assignments) - ghosts, assignments.max(0), 0.0)
    colors = np.array([cluster_color(k) for k in range(len(assignments))], dtype=np.float64)[best]
    size = image.shape[:2]
    color = np.stack([_resized(colors[..., c], size, Image.Resampling.NEAREST) for c in range(3)], axis=2)
    return _blend(image, color, strength * _resized(weights, size, Image.Resampling.NEAREST)[..., None])


def cluster_color(cluster: int) -> tuple[int, int, int]:
    """Choose the color of a cluster.

    Args:
        cluster: Index of the cluster, from 0.

    Returns:
        Red, green and blue, 0 to 255.
    """
    red, green, blue = colorsys.hsv_to_rgb(cluster * GOLDEN_RATIO % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _check(image: np.ndarray, weights: np.ndarray, axes: int, strength: float) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    if weights.ndim != axes or not weights.size or not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError(f"weights must be finite and non-negative, in {axes} dimensions; given: shape {weights.shape}")
    if not 0 <= strength <= 1:
        raise InputError(f"strength must be in [0, 1], not {strength}")


def _resized(values: np.ndarray, size: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    height, width = size
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), filter))


def _blend(image: np.ndarray, color: np.ndarray, opacity: np.ndarray) -> Image.Image:
    gray = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return Image.fromarray(np.rint(gray * (1 - opacity) + color * opacity).clip(0, 255).astype(np.uint8))
