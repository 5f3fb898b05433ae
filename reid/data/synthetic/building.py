"""Landmarks: buildings, each with the same appearance in all of its views."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from reid.data.synthetic.background import WALLS

WIDTH, HEIGHT = 200, 220
"""Pixels of the canvas; the foot of the building is on its lower edge."""

ROOFS = ("gable", "dome", "flat", "spires")
WINDOWS = ("square", "arch", "round")
_SUPERSAMPLING = 2  # for smooth edges


def render_building(rng: np.random.Generator) -> Image.Image:
    """Render a building on a transparent background.

    Args:
        rng: Random generator of the building.

    Returns:
        An RGBA image of WIDTH x HEIGHT pixels.
    """
    image = Image.new("RGBA", (WIDTH * _SUPERSAMPLING, HEIGHT * _SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    wall = _shade(rng, WALLS[rng.integers(len(WALLS))])
    roof, glass = _shade(rng, (110, 74, 62)), _shade(rng, (58, 68, 82))
    foot, middle = HEIGHT * _SUPERSAMPLING - 1, WIDTH * _SUPERSAMPLING // 2
    half = int(rng.integers(45, 75)) * _SUPERSAMPLING
    top = foot - int(rng.integers(80, 135)) * _SUPERSAMPLING
    left, right = middle - half, middle + half
    _roof(draw, ROOFS[rng.integers(len(ROOFS))], left, right, top, roof, int(rng.integers(20, 55)) * _SUPERSAMPLING)
    draw.rectangle((left, top, right, foot), fill=wall)
    for line in range(top, foot, int(rng.integers(8, 30)) * _SUPERSAMPLING):  # courses of stone
        draw.line((left, line, right, line), fill=_darker(wall, 0.88), width=_SUPERSAMPLING)
    towers = int(rng.integers(3))  # none, one, two
    wide, high = int(rng.integers(12, 22)) * _SUPERSAMPLING, int(rng.integers(15, 55)) * _SUPERSAMPLING
    for side in (left, right)[:towers]:
        draw.rectangle((side - wide // 2, top - high, side + wide // 2, foot), fill=_darker(wall, 0.93))
        spire = [(side - wide // 2, top - high), (side + wide // 2, top - high), (side, top - high - 2 * wide)]
        draw.polygon(spire, fill=roof)
    kind = WINDOWS[rng.integers(len(WINDOWS))]
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    step_x, step_y = (right - left - wide) / columns, (foot - top) * 0.75 / rows
    for row in range(rows):
        for column in range(columns):
            x = left + wide / 2 + (column + 0.25) * step_x
            y = top + (row + 0.3) * step_y
            _window(draw, kind, x, y, 0.5 * step_x, 0.6 * step_y, glass)
    _window(
        draw,
        "arch",
        middle - 9 * _SUPERSAMPLING,
        foot - 28 * _SUPERSAMPLING,
        18 * _SUPERSAMPLING,
        28 * _SUPERSAMPLING,
        _darker(roof, 0.6),
    )
    if rng.random() < 0.5:  # a clock or a rose window
        radius = int(rng.integers(8, 15)) * _SUPERSAMPLING
        circle = (middle - radius, top + 2, middle + radius, top + 2 + 2 * radius)
        draw.ellipse(circle, fill=_shade(rng, (214, 196, 130)), outline=glass, width=2 * _SUPERSAMPLING)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def _roof(
    draw: ImageDraw.ImageDraw, kind: str, left: int, right: int, top: int, color: tuple[int, int, int], high: int
) -> None:
    if kind == "gable":
        draw.polygon([(left - 4, top), (right + 4, top), ((left + right) // 2, top - high)], fill=color)
    elif kind == "dome":
        draw.ellipse((left + high // 2, top - high, right - high // 2, top + high), fill=color)
    elif kind == "spires":
        step = (right - left) // 5
        for x in range(left, right - step + 1, step):
            draw.polygon([(x, top), (x + step, top), (x + step // 2, top - high)], fill=color)
    else:  # flat, with battlements
        step = (right - left) // 9
        for x in range(left, right, 2 * step):
            draw.rectangle((x, top - high // 4, x + step, top), fill=color)


def _window(
    draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, wide: float, high: float, fill: tuple[int, int, int]
) -> None:
    if kind == "round":
        side = min(wide, high)
        draw.ellipse((x, y, x + side, y + side), fill=fill)
        return
    if kind == "arch":
        draw.ellipse((x, y, x + wide, y + wide), fill=fill)
        y, high = y + wide / 2, max(high - wide / 2, 1)
    draw.rectangle((x, y, x + wide, y + high), fill=fill)


def _shade(rng: np.random.Generator, color: tuple[float, float, float]) -> tuple[int, int, int]:
    """Sample a shade of a color."""
    red, green, blue = (int(min(250, max(6, c + rng.integers(-28, 29)))) for c in color)
    return red, green, blue


def _darker(color: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(c * factor) for c in color)
    return red, green, blue
