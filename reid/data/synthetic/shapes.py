"""Shaded shapes on a canvas: tapered capsules for limbs, profiles for trunks, ellipsoids for heads.

Coverage is computed from distances, so edges are smooth without drawing larger first. Arrays go only through
operations that IEEE 754 rounds exactly (+, -, *, /, sqrt, comparisons): no sine or exponential of an array and no sums,
whose last digit depends on the processor, so that a dataset does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(along the shape, across it in [-1, 1]) -> colors (3, 1 or h, 1 or w), sRGB levels in 0..255."""

_RIM = 2.5  # pixels of the dark rim


@dataclass(frozen=True)
class Light:
    """ambient plus the direction (x to the right, y down, z to the viewer) scaled by its strength."""

    ambient: float
    x: float
    y: float
    z: float


class Canvas:
    """A picture (3, height, width) float32 in sRGB levels, with the light and the cloth folds that fall on it."""

    def __init__(self, pixels: np.ndarray, light: Light, folds: np.ndarray) -> None:
        self.pixels = pixels
        self.light = light
        self.folds = folds  # (at least height, at least width) float32, around 0
        _, self.height, self.width = pixels.shape
        self.x = np.arange(self.width, dtype=np.float32) + np.float32(0.5)
        self.y = (np.arange(self.height, dtype=np.float32) + np.float32(0.5))[:, None]

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice] | None:
        """The rows and columns that touch a rectangle, or None where it lies outside."""
        x0, x1 = max(0, math.floor(left)), min(self.width, math.ceil(right))
        y0, y1 = max(0, math.floor(top)), min(self.height, math.ceil(bottom))
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def lay(self, at: tuple[slice, slice], edge: np.ndarray, color: np.ndarray, shade: np.ndarray, rim: float) -> None:
        """Lay a shaded color where `edge` (pixels inside the outline) is positive, with a soft dark rim around."""
        target = self.pixels[:, at[0], at[1]]
        cover = edge + 0.5
        np.maximum(cover, 0.0, out=cover)
        np.minimum(cover, 1.0, out=cover)
        keep = 1.0 - cover
        if rim:
            # 1 outside the rim, falling to 1 - rim at the outline.
            np.minimum(keep, np.maximum(edge, -_RIM) * (-rim / _RIM) + (1.0 - rim), out=keep)
            np.maximum(keep, 0.0, out=keep)
        target *= keep
        cover *= shade
        target += cover * color


def capsule(
    canvas: Canvas,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, float],
    paint: Paint,
    *,
    folds: float = 0.0,
    rim: float = 0.22,
) -> None:
    """A limb between two points (x, y) in pixels, its radius going from the first to the second.

    `paint` gets the distance from `start` in [0, 1] and the horizontal offset in radii.
    """
    (ax, ay), (bx, by), (first, last) = start, end, radii
    reach = max(first, last) + _RIM
    at = canvas.window(min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach)
    if at is None:
        return
    length = max(math.hypot(bx - ax, by - ay), 1e-3)
    ex, ey = (bx - ax) / length, (by - ay) / length
    x, y = canvas.x[at[1]] - ax, canvas.y[at[0]] - ay
    along = np.minimum(np.maximum(x * ex + y * ey, 0.0), length)
    radius = first + along * ((last - first) / length)
    off_x, off_y = (x - along * ex) / radius, (y - along * ey) / radius
    squared = off_x * off_x + off_y * off_y
    edge = radius - np.sqrt(squared) * radius
    shade = _shading(canvas, at, off_x, off_y, squared, folds)
    canvas.lay(at, edge, paint(along * (1.0 / length), off_x), shade, rim)


def profile(
    canvas: Canvas,
    rows: np.ndarray,
    middles: np.ndarray,
    halves: np.ndarray,
    paint: Paint,
    *,
    folds: float = 0.0,
    rim: float = 0.22,
) -> None:
    """An upright body given by its outline: at the heights `rows` (ascending, pixels) its middle and half width.

    `paint` gets the row in pixels (h, 1) and the offset in half widths (h, w).
    """
    top, bottom = float(rows[0]), float(rows[-1])
    reach = float(halves.max()) + _RIM
    at = canvas.window(float(middles.min()) - reach, top - _RIM, float(middles.max()) + reach, bottom + _RIM)
    if at is None:
        return
    y = canvas.y[at[0]]
    middle = np.interp(y, rows, middles).astype(np.float32)
    half = np.maximum(np.interp(y, rows, halves).astype(np.float32), 0.3)
    across = (canvas.x[at[1]] - middle) / half
    edge = np.minimum(half - np.abs(across) * half, np.minimum(y - top, bottom - y))
    shade = _shading(canvas, at, across, None, across * across, folds)
    canvas.lay(at, edge, paint(y, across), shade, rim)


def ellipsoid(
    canvas: Canvas,
    centre: tuple[float, float],
    radii: tuple[float, float],
    paint: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    *,
    rim: float = 0.22,
) -> None:
    """A head or another rounded thing; `paint` gets the surface normal (right, down, to the viewer) in [-1, 1]."""
    (cx, cy), (rx, ry) = centre, radii
    at = canvas.window(cx - rx - _RIM, cy - ry - _RIM, cx + rx + _RIM, cy + ry + _RIM)
    if at is None:
        return
    right, down = (canvas.x[at[1]] - cx) / rx, (canvas.y[at[0]] - cy) / ry
    squared = right * right + down * down
    edge = (1.0 - np.sqrt(squared)) * min(rx, ry)
    toward = np.sqrt(np.maximum(1.0 - squared, 0.0))
    light = canvas.light
    shade = light.ambient + light.x * right + light.y * down + light.z * toward
    canvas.lay(at, edge, paint(right, down, toward), shade, rim)


def _shading(
    canvas: Canvas,
    at: tuple[slice, slice],
    right: np.ndarray,
    down: np.ndarray | None,
    squared: np.ndarray,
    folds: float,
) -> np.ndarray:
    light = canvas.light
    shade = np.sqrt(np.maximum(1.0 - squared, 0.0)) * light.z + light.ambient
    shade += right * light.x
    if down is not None:
        shade += down * light.y
    if folds:
        shade += folds * canvas.folds[at]
    return shade
