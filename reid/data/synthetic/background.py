"""Background of a camera: a wide view of a scene, from which each image takes a window."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reid.data.synthetic.appearance import Color, pick

VIEW_HEIGHT, VIEW_WIDTH = 184, 420
"""Pixels of the whole view at a scale of 1."""

SCENES = (("shop", 0.25), ("park", 0.25), ("street", 0.25), ("plaza", 0.25))
WALLS: tuple[Color, ...] = ((178, 170, 156), (150, 120, 100), (196, 196, 194), (120, 128, 136), (204, 186, 150))
GROUNDS: tuple[Color, ...] = ((150, 148, 144), (176, 168, 154), (118, 118, 122), (160, 142, 128), (134, 140, 132))
SIGNS: tuple[Color, ...] = ((176, 44, 40), (40, 84, 150), (214, 190, 70), (40, 120, 80), (230, 230, 230), (40, 40, 44))


def cloud(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> np.ndarray:
    """Generate smooth noise.

    Args:
        rng: Random generator; its state advances.
        height: Height in pixels.
        width: Width in pixels.
        cells: Number of blobs vertically and horizontally.

    Returns:
        (height, width) float32 in about [-1, 1].
    """
    grid = rng.random(cells, dtype=np.float32) * 2.0 - 1.0
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def render_view(rng: np.random.Generator, scale: float, horizon: float) -> np.ndarray:
    """Render the scene behind a camera's pedestrians.

    Args:
        rng: Random generator of the camera.
        scale: Pixels per pixel of the final image.
        horizon: Where ground and walls meet, as a fraction of the height from the top; may be below 0.

    Returns:
        (3, VIEW_HEIGHT * scale, VIEW_WIDTH * scale) float32 in sRGB levels.
    """
    width, height = round(VIEW_WIDTH * scale), round(VIEW_HEIGHT * scale)
    edge = round(horizon * height)
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    image = Image.new("RGB", (width, height), _rgb(ground))
    draw = ImageDraw.Draw(image)
    _pavement(draw, rng, width, height, edge, ground)
    if edge > 0:
        scene = pick(rng, SCENES)
        draw.rectangle((0, 0, width, edge), fill=_rgb(WALLS[rng.integers(len(WALLS))]))
        {"shop": _shop, "park": _park, "street": _street, "plaza": _plaza}[scene](draw, rng, width, edge, scale)
    for _ in range(rng.integers(8, 18)):
        _object(draw, rng, width, height, max(edge, 0), scale)
    image = image.filter(ImageFilter.GaussianBlur(0.8 * scale))
    pixels = np.moveaxis(np.asarray(image, dtype=np.float32), 2, 0).copy()
    pixels += 5.0 * cloud(rng, height, width, (height // 2, width // 2))
    pixels += 5.0 * cloud(rng, height, width, (height // 5, width // 11))
    pixels *= 1.0 + 0.20 * cloud(rng, height, width, (4, 9))
    pixels *= np.linspace(rng.uniform(0.88, 1.0), rng.uniform(0.95, 1.12), height, dtype=np.float32)[:, None]
    return np.minimum(np.maximum(pixels, 6.0), 250.0)


def _rgb(color: Color, factor: float = 1.0) -> tuple[int, int, int]:
    red, green, blue = (min(250, max(0, round(channel * factor))) for channel in color)
    return red, green, blue


def _pavement(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int, edge: int, ground: Color
) -> None:
    joint = _rgb(ground, rng.uniform(0.68, 0.88))
    far = max(-0.3 * height, edge - 0.12 * height)
    row, step = float(max(edge, 0)), rng.uniform(0.02, 0.05) * height
    slabs = rng.random() < 0.65
    while slabs and row < height:
        draw.line((0, row, width, row), fill=joint, width=1)
        row += step
        step *= 1.16
    vanish = rng.uniform(0.2, 0.8) * width
    for column in np.arange(-2.0, 3.0, rng.uniform(0.06, 0.14)) * width if slabs else ():
        draw.line((vanish + 0.15 * (column - vanish), far, column, height), fill=joint, width=1)
    for _ in range(5):  # worn or wet patches and shadows of objects out of sight
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(max(edge, 0), height)
        wide, high = rng.uniform(0.06, 0.3) * width, rng.uniform(0.02, 0.09) * height
        draw.ellipse((x, y, x + wide, y + high), fill=_rgb(ground, rng.uniform(0.74, 1.12)))
    if rng.random() < 0.6:  # a kerb, a lawn or a painted line across the view
        start, slope = rng.uniform(0.3, 0.95) * height, rng.uniform(-0.25, 0.25) * height
        thick = rng.uniform(0.02, 0.16) * height
        fill = ((86, 112, 66), _rgb(ground, 1.25), _rgb(ground, 0.7), (206, 190, 92))[rng.integers(4)]
        draw.polygon([(0, start), (width, start + slope), (width, start + slope + thick), (0, start + thick)], fill)


def _shop(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, edge: int, scale: float) -> None:
    column = 0.0
    while column < width:
        wide = rng.uniform(30, 70) * scale
        sign = _rgb(SIGNS[rng.integers(len(SIGNS))])
        draw.rectangle((column, 0.02 * edge, column + wide - 3, 0.24 * edge), fill=sign)
        glass = (70, 84, 94) if rng.random() < 0.6 else (168, 160, 140)
        draw.rectangle((column + 3, 0.32 * edge, column + wide - 6, 0.95 * edge), fill=glass)
        for _ in range(4):
            x, y = column + rng.uniform(5, 26) * scale, rng.uniform(0.4, 0.8) * edge
            draw.rectangle((x, y, x + 7 * scale, y + 0.12 * edge), fill=_rgb(SIGNS[rng.integers(len(SIGNS))], 0.8))
        column += wide


def _park(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, edge: int, scale: float) -> None:
    draw.rectangle((0, 0, width, edge), fill=(104, 124, 92))
    for _ in range(90):
        x, y = rng.uniform(0, width), rng.uniform(-0.1, 0.9) * edge
        radius = rng.uniform(4, 14) * scale
        green = rng.uniform(0.5, 1.25)
        draw.ellipse((x - radius, y - radius, x + radius, y + 0.8 * radius), fill=_rgb((80, 108, 62), green))
    for _ in range(7):
        x, wide = rng.uniform(0, width), rng.uniform(2, 5) * scale
        draw.rectangle((x, 0.1 * edge, x + wide, edge), fill=(74, 60, 48))


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, edge: int, scale: float) -> None:
    step = rng.uniform(16, 28) * scale
    for x in np.arange(0.3 * step, width, step):
        for y in np.arange(0.05 * edge, 0.6 * edge, 0.25 * edge + 6):
            draw.rectangle((x, y, x + 0.55 * step, y + 0.16 * edge), fill=(78, 88, 98))
    for _ in range(5):
        x, wide = rng.uniform(0, width), rng.uniform(40, 62) * scale
        paint = _rgb(SIGNS[rng.integers(len(SIGNS))], 0.9)
        draw.rectangle((x, 0.72 * edge, x + wide, 0.98 * edge), fill=paint)
        draw.rectangle((x + 0.2 * wide, 0.58 * edge, x + 0.8 * wide, 0.74 * edge), fill=(66, 76, 84))
        for wheel in (0.2, 0.8):
            center, radius = x + wheel * wide, 4 * scale
            draw.ellipse((center - radius, edge - radius, center + radius, edge + radius), fill=(30, 30, 32))


def _plaza(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, edge: int, scale: float) -> None:
    draw.rectangle((0, 0, width, 0.35 * edge), fill=(208, 214, 220))
    for x in np.arange(0, width, rng.uniform(22, 40) * scale):
        draw.rectangle((x, 0.1 * edge, x + 5 * scale, edge), fill=(148, 142, 134))
    for _ in range(24):
        x, radius, green = rng.uniform(0, width), rng.uniform(4, 10) * scale, rng.uniform(0.7, 1.2)
        draw.ellipse((x - radius, edge - 1.5 * radius, x + radius, edge + 2), fill=_rgb((70, 96, 60), green))


def _object(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int, edge: int, scale: float
) -> None:
    """Draw a bicycle, a post or a crate."""
    x, foot = rng.uniform(0, width), rng.uniform(edge + 4, max(edge + 8, 0.55 * height))
    size = (8 + 14 * (foot - edge) / height) * scale
    kind = rng.integers(3)
    if kind == 0:
        tire = max(1, round(scale))
        for left in (x, x + 1.7 * size):
            draw.ellipse((left, foot - size, left + size, foot), outline=(46, 46, 48), width=tire)
        frame = _rgb(SIGNS[rng.integers(len(SIGNS))], 0.8)
        draw.line(
            (x + 0.5 * size, foot - 0.5 * size, x + size, foot - 1.2 * size, x + 2.2 * size, foot - 0.5 * size),
            fill=frame,
            width=max(1, round(1.4 * scale)),
        )
    elif kind == 1:
        draw.rectangle((x, foot - 3.5 * size, x + 0.25 * size, foot), fill=(92, 92, 94))
    else:
        draw.rectangle((x, foot - size, x + 1.2 * size, foot), fill=_rgb((150, 120, 84), rng.uniform(0.6, 1.2)))
