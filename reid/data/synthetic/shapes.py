"""Shaded shapes on a canvas: tapered capsules for limbs, profiles for trunks, ellipsoids for heads.

Coverage is computed from distances, so edges are smooth without supersampling. Arrays are processed only by operations
that IEEE 754 rounds exactly (+, -, *, /, sqrt, comparisons). The last digit of sums and of the sine or exponential of
an array depends on the processor; without them, a dataset does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(along the shape, across it in [-1, 1]) -> colors (3, 1 or h, 1 or w), sRGB levels in 0..255."""

_RIM = 2.5  # width of the dark rim in pixels


@dataclass(frozen=True)
class Light:
    """Ambient and directional light.

    Attributes:
        ambient: Strength of the ambient light.
        x: Component of the directional light to the right, scaled by its strength.
        y: Component pointing down.
        z: Component toward the viewer.
    """

    ambient: float
    x: float
    y: float
    z: float


class Canvas:
    """An image to draw on, with its light and the folds of cloth.

    Args:
        pixels: (3, height, width) float32 in sRGB levels; modified in place.
        light: Light of the scene.
        folds: (at least height, at least width) float32 around 0, added to the shading of cloth.
    """

    def __init__(self, pixels: np.ndarray, light: Light, folds: np.ndarray) -> None:
        self.pixels = pixels
        self.light = light
        self.folds = folds
        _, self.height, self.width = pixels.shape
        self.x = np.arange(self.width, dtype=np.float32) + np.float32(0.5)
        self.y = (np.arange(self.height, dtype=np.float32) + np.float32(0.5))[:, None]

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice] | None:
        """Compute the rows and columns that a rectangle covers.

        Args:
            left: Left edge in pixels.
            top: Row of the top edge in pixels.
            right: Column of the right edge in pixels.
            bottom: Row of the bottom edge in pixels.

        Returns:
            Slices of rows and columns, or None if the rectangle is outside the canvas.
        """
        x0, x1 = max(0, math.floor(left)), min(self.width, math.ceil(right))
        y0, y1 = max(0, math.floor(top)), min(self.height, math.ceil(bottom))
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def blend(
        self, at: tuple[slice, slice], edge: np.ndarray, color: np.ndarray, shade: np.ndarray, rim: float
    ) -> None:
        """Blend a shaded color into a window, with a soft dark rim around the outline.

        Args:
            at: Rows and columns of the window.
            edge: Signed distances from the outline in pixels, positive inside.
            color: sRGB levels, broadcast to the window.
            shade: Factors of the color.
            rim: Strength of the rim in [0, 1].
        """
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
    """Draw a limb between two points.

    Args:
        canvas: Canvas to draw on.
        start: First point (x, y) in pixels.
        end: Column and row of the other end in pixels.
        radii: Radii at the two points in pixels.
        paint: Called with the distance from `start` in [0, 1] and the horizontal offset in radii.
        folds: Strength of the folds.
        rim: Strength of the dark rim.
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
    canvas.blend(at, edge, paint(along * (1.0 / length), off_x), shade, rim)


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
    """Draw an upright body given by its outline.

    Args:
        canvas: Canvas to draw on.
        rows: Ascending heights in pixels.
        middles: Center of the body at these heights, in pixels.
        halves: Half width at these heights, in pixels.
        paint: Called with the row in pixels (h, 1) and the offset in half widths (h, w).
        folds: Strength of the folds.
        rim: Strength of the dark rim.
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
    canvas.blend(at, edge, paint(y, across), shade, rim)


def ellipsoid(
    canvas: Canvas,
    center: tuple[float, float],
    radii: tuple[float, float],
    paint: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    *,
    rim: float = 0.22,
) -> None:
    """Draw a head or another rounded object.

    Args:
        canvas: Canvas to draw on.
        center: Center (x, y) in pixels.
        radii: Horizontal and vertical radius in pixels.
        paint: Called with the surface normal (right, down, toward the viewer) in [-1, 1].
        rim: Strength of the dark rim.
    """
    (cx, cy), (rx, ry) = center, radii
    at = canvas.window(cx - rx - _RIM, cy - ry - _RIM, cx + rx + _RIM, cy + ry + _RIM)
    if at is None:
        return
    right, down = (canvas.x[at[1]] - cx) / rx, (canvas.y[at[0]] - cy) / ry
    squared = right * right + down * down
    edge = (1.0 - np.sqrt(squared)) * min(rx, ry)
    toward = np.sqrt(np.maximum(1.0 - squared, 0.0))
    light = canvas.light
    shade = light.ambient + light.x * right + light.y * down + light.z * toward
    canvas.blend(at, edge, paint(right, down, toward), shade, rim)


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
