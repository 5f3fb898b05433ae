"""Bags on the back, over the shoulder and in the hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from reid.data.synthetic import clothing
from reid.data.synthetic.appearance import Appearance
from reid.data.synthetic.clothing import plain
from reid.data.synthetic.shapes import Canvas, capsule, profile
from reid.data.synthetic.skeleton import Point, Projection


def bag_parts(canvas: Canvas, person: Appearance, view: Projection) -> list[tuple[float, Callable[[], None]]]:
    """List the parts of a bag worn on the trunk.

    Args:
        canvas: Canvas to draw on.
        person: Appearance with the bag.
        view: Projection of the figure.

    Returns:
        Drawing order and drawing function of each part (see `figure.Part`); empty without such a bag.
    """
    if person.bag == "backpack":
        order = -0.3 if view.cos > 0.0 else 0.35 if view.cos < -0.5 else 0.2
        pack = partial(_box, canvas, person, view, (0.0, -0.095, 0.725), (0.082, 0.058, 0.112))
        straps: list[tuple[float, Callable[[], None]]] = [
            (0.05, partial(_strap, canvas, person, view, (side * 0.062, 0.05, 0.832), (side * 0.078, 0.06, 0.665)))
            for side in (-1, 1)
            if view.cos > 0.2
        ]
        return [(order, pack), *straps]
    if person.bag == "shoulder":
        side = person.bag_side
        hip = (side * 0.125 * person.girth, -0.01, 0.50)
        order = 0.28 if view.depth(hip[0], hip[1]) > -0.03 else -0.25
        return [
            (0.12, partial(_strap, canvas, person, view, (-side * 0.055, 0.0, 0.842), hip)),
            (order, partial(_box, canvas, person, view, hip, (0.040, 0.072, 0.062))),
        ]
    return []


def handbag(canvas: Canvas, person: Appearance, view: Projection, hand: Point) -> None:
    """Draw a bag hanging from the hand.

    Args:
        canvas: Canvas to draw on.
        person: Appearance with the bag.
        view: Projection of the figure.
        hand: Position of the hand in body coordinates.
    """
    _box(canvas, person, view, (hand[0], hand[1], hand[2] - 0.10 * person.bag_size), (0.085, 0.03, 0.075))


def _strap(canvas: Canvas, person: Appearance, view: Projection, start: Point, end: Point) -> None:
    radius = 0.012 * view.unit(0.75)
    capsule(canvas, view(start), view(end), (radius, radius), plain(person.bag_color), rim=0.13)


def _box(canvas: Canvas, person: Appearance, view: Projection, middle: Point, size: Point) -> None:
    """Draw a rounded box with a seam; `size` is half its width, depth and height."""
    wide, deep, high = (person.bag_size * length for length in size)
    column, row = view(middle)
    half, tall = view.half_width(wide, deep, middle[2]), high * view.place.scale
    rows = row + tall * np.array([-1.0, -0.88, -0.6, 0.8, 0.93, 1.0])
    halves = half * np.array([0.55, 0.85, 0.97, 1.0, 0.92, 0.75])
    body = clothing.level(person.bag_color)
    seam, seam_row = 0.72 * body, row - 0.25 * tall

    def paint(y: np.ndarray, across: np.ndarray) -> np.ndarray:
        return clothing.mixed(body, seam, clothing.soft(1.0 - np.abs(y - seam_row)))

    profile(canvas, rows, np.full(len(rows), column), halves, paint, folds=0.08)
