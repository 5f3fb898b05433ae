"""What a pooling looks at, drawn over the image: attention of a weighted pooling, clusters of a VLAD."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from reid.errors import InputError

GOLDEN = 0.618033988749895  # of a turn of the color wheel: neighbors in number are far apart in color


def draw_attention(image: np.ndarray, weights: np.ndarray, *, strength: float = 0.65) -> Image.Image:
    """The image, grayed, with red where the weights are high.

    image: (H, W, 3) uint8. weights: (h, w), 0 or more, spread over the image bilinearly; the largest is drawn in full.
    strength: opacity of the largest weight, 0 to 1. Raises InputError for other shapes or negative weights.
    """
    _check(image, weights, 2, strength)
    weights = weights.astype(np.float64)
    top = weights.max()
    part = _spread(weights / top if top > 0 else weights, image.shape[:2], Image.Resampling.BILINEAR)
    return _blend(image, np.array([230.0, 30.0, 30.0]), strength * part[..., None])


def draw_assignments(
    image: np.ndarray, assignments: np.ndarray, *, strength: float = 0.65, ghosts: int = 0
) -> Image.Image:
    """The image, grayed, with the color of each place's strongest cluster, the fainter the less sure it is.

    image: (H, W, 3) uint8. assignments: (K, h, w), the K of a place summing to 1; the last `ghosts` of them are left
    without color. Places keep hard edges. A cluster has the same color in every image. Raises as `draw_attention`.
    """
    _check(image, assignments, 3, strength)
    best = assignments.argmax(0)
    sure = np.where(best < len(assignments) - ghosts, assignments.max(0), 0.0)
    colors = np.array([cluster_color(k) for k in range(len(assignments))], dtype=np.float64)[best]
    size = image.shape[:2]
    spread = np.stack([_spread(colors[..., c], size, Image.Resampling.NEAREST) for c in range(3)], axis=2)
    return _blend(image, spread, strength * _spread(sure, size, Image.Resampling.NEAREST)[..., None])


def cluster_color(cluster: int) -> tuple[int, int, int]:
    """RGB of a cluster by its number, 0 to 255 each."""
    red, green, blue = colorsys.hsv_to_rgb(cluster * GOLDEN % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _check(image: np.ndarray, weights: np.ndarray, axes: int, strength: float) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image to draw over is (H, W, 3) uint8, not {image.dtype} {image.shape}")
    if weights.ndim != axes or not weights.size or not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError(f"weights to draw have {axes} axes and values of 0 or more; given: shape {weights.shape}")
    if not 0 <= strength <= 1:
        raise InputError(f"the strength of a drawing is 0 to 1, not {strength}")


def _spread(values: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    height, width = size
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how))


def _blend(image: np.ndarray, color: np.ndarray, opacity: np.ndarray) -> Image.Image:
    gray = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return Image.fromarray(np.rint(gray * (1 - opacity) + color * opacity).clip(0, 255).astype(np.uint8))
