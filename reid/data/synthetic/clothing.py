"""Paints: functions that compute the color at each point of a garment, a head or a bag.

A point of an upright body is given by its distance below the shoulders (in body heights) and by its angle around the
body in turns: 0 is the center of the front, 0.5 the center of the back, positive toward the right of the image if the
body faces the camera. So a print on the chest rotates with the person, and stripes run around the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reid.data.synthetic.appearance import Appearance, Color, Garment
from reid.data.synthetic.shapes import Paint

CHEST = 0.63
"""Circumference of the chest in body heights."""


def level(color: Color) -> np.ndarray:
    """Convert a color to an array.

    Args:
        color: sRGB levels of red, green and blue.

    Returns:
        (3, 1, 1) float32.
    """
    return np.array(color, dtype=np.float32)[:, None, None]


def plain(color: Color) -> Paint:
    """Create a paint of one color.

    Args:
        color: sRGB levels of red, green and blue.

    Returns:
        Paint that ignores the position.
    """
    value = level(color)
    return lambda along, across: value


def mixed(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate between two colors.

    Args:
        first: Color at weight 0.
        second: Color at weight 1.
        weight: Weights in [0, 1].

    Returns:
        Colors of the broadcast shape of the arguments.
    """
    return first + weight * (second - first)


def soft(inside: np.ndarray) -> np.ndarray:
    """Compute a soft step at 0, one pixel wide.

    Args:
        inside: Signed distances in pixels.

    Returns:
        Weights in [0, 1].
    """
    return np.minimum(np.maximum(inside + 0.5, 0.0), 1.0)


def around(across: np.ndarray, yaw: float) -> np.ndarray:
    """Compute the angle of a visible point around an upright body.

    The angle is asin(across) - yaw, with asin(u) approximated by u + 0.5708 u^3 (exact at 0 and 1, within 0.06
    between).

    Args:
        across: Horizontal offset of the point from the center, in half widths.
        yaw: Orientation of the body in radians.

    Returns:
        Turns in [-0.5, 0.5].
    """
    clipped = np.minimum(np.maximum(across, -1.0), 1.0)
    turns = clipped * (1.0 + 0.5708 * clipped * clipped) * (0.5 / math.pi) - yaw * (0.5 / math.pi)
    return turns - np.rint(turns)


def wave(position: np.ndarray, period: float, pixels: float) -> np.ndarray:
    """Compute the weights of evenly spaced stripes.

    Args:
        position: Positions across the stripes.
        period: Period in the unit of `position`.
        pixels: Pixels per unit of `position`.

    Returns:
        Weights in [0, 1].
    """
    cycles = position * (1.0 / period)
    triangle = np.abs(cycles - np.floor(cycles) - 0.5) * 4.0 - 1.0
    return np.minimum(np.maximum(triangle * (0.25 * period * pixels) + 0.5, 0.0), 1.0)


def cloth(garment: Garment, below: np.ndarray, turns: np.ndarray, scale: float) -> np.ndarray:
    """Compute the color of a garment.

    Args:
        garment: Garment whose colors, pattern and print are drawn.
        below: Distances below the shoulders in body heights.
        turns: Angles around the body in turns.
        scale: Pixels per body height.

    Returns:
        Colors (3, 1 or h, 1 or w) in sRGB levels, as a `Paint` returns them.
    """
    base = level(garment.color)
    if garment.pattern == "plain":
        return base
    second = level(garment.second)
    if garment.pattern == "striped":
        return mixed(base, second, wave(below, garment.period, scale))
    columns = wave(turns, garment.period / CHEST, scale * CHEST) if garment.pattern != "printed" else turns
    if garment.pattern == "columns":
        return mixed(base, second, columns)
    if garment.pattern == "checked":
        return mixed(base, second, 0.5 * (columns + wave(below, garment.period, scale)))
    weight = _motif(garment, below, turns, scale)
    if garment.print_on_back:
        weight = weight + _motif(garment, below, turns - 0.5 - np.rint(turns - 0.5), scale)
    return mixed(base, second, weight)


def _motif(garment: Garment, below: np.ndarray, turns: np.ndarray, scale: float) -> np.ndarray:
    half_width, half_height = garment.print_size
    down = (below - garment.print_height) / half_height
    aside = turns / half_width
    pixels = half_height * scale
    if garment.print_shape == "disc":
        return soft((1.0 - (aside * aside + down * down)) * 0.5 * pixels)
    inside = soft((1.0 - np.maximum(np.abs(aside), np.abs(down))) * pixels)
    return inside if garment.print_shape == "block" else inside * wave(down, 0.8, pixels)


def trunk(person: Appearance, yaw: float, shoulder_row: float, scale: float) -> Paint:
    """Create the paint of the trunk: top, open jacket and neckline.

    Args:
        person: Identity whose top, jacket and skin are drawn.
        yaw: Orientation of the body in radians.
        shoulder_row: Row of the shoulders in pixels.
        scale: Pixels per body height.

    Returns:
        A paint for `shapes.profile`.
    """
    jacket = None if person.jacket is None else level(person.jacket)
    skin = level(person.skin)

    def paint(row: np.ndarray, across: np.ndarray) -> np.ndarray:
        below = (row - shoulder_row) * (1.0 / scale)
        turns = around(across, yaw)
        color = cloth(person.top, below, turns, scale)
        from_front = np.abs(turns) * CHEST
        if jacket is not None:
            opening = 0.028 + 0.10 * below
            color = mixed(color, jacket, soft((from_front - opening) * scale))
        neckline = (0.030 - 0.8 * np.maximum(below + 0.01, 0.0)) - from_front
        return mixed(color, skin, soft(neckline * scale))

    return paint


def skirt(person: Appearance, yaw: float, shoulder_row: float, scale: float) -> Paint:
    """Create the paint of a skirt, whose pattern continues that of the top if both form a dress.

    Args:
        person: Identity whose skirt is drawn.
        yaw: Orientation of the body in radians.
        shoulder_row: Row of the shoulders in pixels.
        scale: Pixels per body height.

    Returns:
        A paint for `shapes.profile`.
    """

    def paint(row: np.ndarray, across: np.ndarray) -> np.ndarray:
        return cloth(person.bottom_garment, (row - shoulder_row) * (1.0 / scale), around(across, yaw), scale)

    return paint


def leg(person: Appearance, yaw: float, side: int) -> Paint:
    """Create the paint of a trouser leg, with the stripe along its outside if there is one.

    Args:
        person: Identity whose trousers are drawn.
        yaw: Orientation of the body in radians.
        side: Side of the body, -1 or +1.

    Returns:
        A paint for `shapes.capsule`.
    """
    base = level(person.bottom_garment.color)
    if person.stripe is None:
        return lambda along, across: base
    stripe = level(person.stripe)

    def paint(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        aside = around(across, yaw) - 0.25 * side
        return mixed(base, stripe, soft((0.055 - np.abs(aside - np.rint(aside))) * 30.0))

    return paint


def head(person: Appearance, yaw: float, pixels: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Create the paint of face, hair and hat.

    Args:
        person: Identity whose face, hair and hat are drawn.
        yaw: Orientation of the body in radians.
        pixels: Half width of the head in pixels.

    Returns:
        A paint for `shapes.ellipsoid`.
    """
    skin, hair, hat = level(person.skin), level(person.hair), level(person.hat_color)
    features = level((70.0, 46.0, 42.0))
    ahead_x, ahead_z = math.sin(yaw), math.cos(yaw)
    style = person.hair_style
    start = {"bald": 2.0, "cropped": 0.42}.get(style, 0.25)  # how far forward the hair reaches at the forehead

    def paint(right: np.ndarray, down: np.ndarray, toward: np.ndarray) -> np.ndarray:
        ahead = right * ahead_x + toward * ahead_z
        aside = right * ahead_z - toward * ahead_x
        eyes = 1.0 - (np.abs(np.abs(aside) - 0.38) * 5.0) - np.abs(down - 0.02) * 7.0
        mouth = 1.0 - np.abs(aside) * 3.0 - np.abs(down - 0.56) * 8.0
        marks = np.minimum(np.maximum(np.maximum(eyes * 1.4, mouth * 0.8), 0.0), 0.8) * (ahead > 0.2)
        color = mixed(skin, features, marks)
        if style != "bald":
            nape = 0.75 if style == "long" else 1.35  # long hair covers the ears
            line = start - (down + 0.35) * np.where(down > -0.35, nape * 0.7, 1.0)
            line = np.maximum(line, 0.12) if style == "long" else line
            color = mixed(color, hair, soft((line - ahead) * 0.8 * pixels))
        if person.hat != "none":
            rim = -0.30 if person.hat == "cap" else -0.18
            color = mixed(color, hat, soft((rim - down) * pixels))
        return color

    return paint
