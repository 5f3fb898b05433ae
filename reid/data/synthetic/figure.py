"""Rendering of a person limb by limb, from the farthest part to the nearest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from reid.data.synthetic import bags, clothing
from reid.data.synthetic.appearance import Appearance
from reid.data.synthetic.clothing import plain
from reid.data.synthetic.shapes import Canvas, Paint, capsule, ellipsoid, profile
from reid.data.synthetic.skeleton import Joints, Placement, Point, Pose, Projection, arm_joints, interpolate, leg_joints

Part = tuple[float, Callable[[], None]]
"""Drawing order and drawing function; legs are below 0, the trunk is at 0, and nearer parts are above 0."""

ANKLE_HEIGHT = 0.035


def render_figure(canvas: Canvas, person: Appearance, pose: Pose, place: Placement) -> None:
    """Draw one pedestrian.

    Args:
        canvas: Canvas to draw on.
        person: Identity to draw: body measures, clothes and bag.
        pose: Orientation of the body and phase of the step.
        place: Position in the image.
    """
    legs = {side: leg_joints(person, pose, side) for side in (-1, 1)}
    drop = min(ankle[2] for _, _, ankle in legs.values()) - ANKLE_HEIGHT
    view = Projection(pose, place, drop)
    parts: list[Part] = [
        (0.0, partial(_lower_body, canvas, person, pose, view)),
        (0.0, partial(_upper_body, canvas, person, pose, view)),
        (0.1, partial(_head, canvas, person, pose, view)),
    ]
    for side, joints in legs.items():
        hip, _, ankle = joints
        parts.append((view.depth(hip[0], ankle[1]) - 0.7, partial(_leg, canvas, person, pose, view, side, joints)))
        arm = arm_joints(person, pose, side)
        order = -0.2 if view.depth(arm[0][0], 0.0) < -0.02 else 0.3
        parts.append((order, partial(_arm, canvas, person, view, side, arm)))
    parts += _hair(canvas, person, pose, view)
    parts += bags.bag_parts(canvas, person, view)
    for _, draw in sorted(parts, key=lambda part: part[0]):
        draw()


def _leg(canvas: Canvas, person: Appearance, pose: Pose, view: Projection, side: int, joints: Joints) -> None:
    hip, knee, ankle = joints
    unit = view.unit(0.25)
    slim = 0.9 + 0.1 * person.girth
    covered = 0.0 if person.bottom == "skirt" else person.bottom_length
    if covered < 0.85:
        bare = plain(person.skin)
        capsule(canvas, view(hip), view(knee), (0.042 * slim * unit, 0.031 * slim * unit), bare)
        capsule(canvas, view(knee), view(ankle), (0.031 * slim * unit, 0.020 * unit), bare, rim=0.1)
    heel = (ankle[0], ankle[1] - 0.018, ankle[2] - 0.018)
    toe = (ankle[0] + 0.012 * side, ankle[1] + 0.068, max(0.014 + view.drop, ankle[2] - 0.026))
    _shoe(canvas, person, view, heel, toe)
    if covered:
        wide = person.leg_width * slim * unit
        cloth = clothing.leg(person, pose.yaw, side)
        upper = min(1.0, covered * 2.0)
        thigh = (0.055 * wide, (0.055 - 0.012 * upper) * wide)
        capsule(canvas, view(hip), view(interpolate(hip, knee, upper)), thigh, cloth, folds=0.10)
        if covered > 0.5:
            end = interpolate(knee, ankle, (covered - 0.5) * 2.0)
            capsule(canvas, view(knee), view(end), (0.043 * wide, 0.034 * wide), cloth, folds=0.12, rim=0.08)


def _shoe(canvas: Canvas, person: Appearance, view: Projection, heel: Point, toe: Point) -> None:
    unit = view.unit(0.0)
    below = [(x, y, z - 0.010) for x, y, z in (heel, toe)]
    capsule(canvas, view(below[0]), view(below[1]), (0.024 * unit, 0.021 * unit), plain(person.sole))
    capsule(canvas, view(heel), view(toe), (0.026 * unit, 0.021 * unit), plain(person.shoe), rim=0.0)


def _arm(canvas: Canvas, person: Appearance, view: Projection, side: int, joints: Joints) -> None:
    shoulder, elbow, wrist = joints
    unit = view.unit(0.65)
    thick = (0.85 + 0.15 * person.girth) * unit
    skin, sleeve, reach = plain(person.skin), plain(person.sleeve), person.sleeve_length
    if reach < 0.8:
        capsule(canvas, view(shoulder), view(elbow), (0.029 * thick, 0.024 * thick), skin)
        capsule(canvas, view(elbow), view(wrist), (0.024 * thick, 0.018 * unit), skin, rim=0.1)
    hand = interpolate(elbow, wrist, 1.16)
    capsule(canvas, view(wrist), view(hand), (0.019 * unit, 0.017 * unit), skin, rim=0.1)
    end = interpolate(shoulder, elbow, min(1.0, reach * 2.0))
    capsule(canvas, view(shoulder), view(end), (0.033 * thick, 0.031 * thick), sleeve, folds=0.10, rim=0.14)
    if reach > 0.5:
        cuff = interpolate(elbow, wrist, (reach - 0.5) * 2.0)
        capsule(canvas, view(elbow), view(cuff), (0.031 * thick, 0.025 * thick), sleeve, folds=0.12, rim=0.08)
    if person.bag == "handbag" and side == person.bag_side:
        bags.handbag(canvas, person, view, hand)


def _lower_body(canvas: Canvas, person: Appearance, pose: Pose, view: Projection) -> None:
    girth = person.girth
    if person.bottom == "skirt":
        flare = 1.0 + 0.45 * pose.stride
        rows = [
            (0.60, 0.074 * girth, 0.058 * girth),
            (0.50, 0.094 * girth, 0.072 * girth),
            (0.50 - 0.46 * person.bottom_length, 0.118 * girth, 0.100 * girth * flare),
        ]
        paint = clothing.skirt(person, pose.yaw, view((0.0, 0.0, 0.82))[1], view.place.scale)
        _upright(canvas, view, rows, paint, folds=0.14)
    else:
        rows = [
            (0.58, 0.074 * girth, 0.058 * girth),
            (0.52, 0.092 * girth, 0.070 * girth),
            (0.465, 0.090 * girth, 0.060 * girth),
        ]
        _upright(canvas, view, rows, plain(person.bottom_garment.color), folds=0.08, rim=0.0)


def _upper_body(canvas: Canvas, person: Appearance, pose: Pose, view: Projection) -> None:
    neck, chin = view((0.0, 0.0, 0.83)), view((0.0, 0.006 + pose.lean, 0.885))
    capsule(canvas, neck, chin, (0.034 * view.unit(0.85), 0.028 * view.unit(0.88)), plain(person.skin))
    girth, shoulder, hem = person.girth, person.shoulder, person.hem
    flare = girth * (1.0 + 0.8 * max(0.0, 0.50 - hem))  # a coat hangs wider than a shirt
    rows = [
        (0.852, 0.034, 0.034),
        (0.843, 0.50 * shoulder, 0.044),
        (0.826, 0.82 * shoulder, 0.052),
        (0.800, 0.96 * shoulder, 0.058),
        (0.740, 0.92 * shoulder, 0.068 * girth),
        (0.620, (0.36 * shoulder + 0.046) * girth, 0.062 * girth),
        (0.535, (0.28 * shoulder + 0.064) * girth, 0.070 * girth),
        (hem - 0.005, (0.28 * shoulder + 0.066) * flare, 0.074 * flare),
    ]
    paint = clothing.trunk(person, pose.yaw, view((0.0, 0.0, 0.838))[1], view.place.scale)
    _upright(canvas, view, rows, paint, folds=0.13)


def _upright(
    canvas: Canvas,
    view: Projection,
    rows: Sequence[tuple[float, float, float]],
    paint: Paint,
    *,
    folds: float,
    rim: float = 0.22,
) -> None:
    """Draw a trunk of elliptic sections, given from the top as (height, half width, half depth)."""
    middles = np.array([view((0.0, 0.0, z)) for z, _, _ in rows])
    halves = np.array([view.half_width(wide, deep, z) for z, wide, deep in rows])
    profile(canvas, middles[:, 1], middles[:, 0], halves, paint, folds=folds, rim=rim)


def _head(canvas: Canvas, person: Appearance, pose: Pose, view: Projection) -> None:
    taller = 0.008 if person.hat == "beanie" else 0.0
    radii = (
        view.half_width(0.050, 0.057, 0.93) * person.head_size,
        (0.067 + taller) * person.head_size * view.place.scale,
    )
    center = view((0.0, 0.012 + pose.lean, 0.925 + taller))
    ellipsoid(canvas, center, radii, clothing.head(person, pose.yaw, radii[0]))
    if person.hat == "cap" and view.cos > -0.6:
        unit, ahead = view.unit(0.95), 0.04 + pose.lean
        brim = (0.030 * (0.5 + 0.5 * abs(view.cos)) * unit, 0.014 * unit)
        capsule(canvas, view((0.0, ahead, 0.951)), view((0.0, ahead + 0.05, 0.944)), brim, plain(person.hat_color))


def _hair(canvas: Canvas, person: Appearance, pose: Pose, view: Projection) -> list[Part]:
    """List the parts of long or tied hair, behind the head if the person faces the camera."""
    lean, unit = pose.lean, view.unit(0.9)
    strands: dict[str, tuple[Point, Point, float, float]] = {
        "long": ((0.0, -0.022 + lean, 0.93), (0.0, -0.040, 0.79), 0.050, 0.044),
        "tail": ((0.0, -0.050 + lean, 0.94), (0.0, -0.082, 0.82), 0.022, 0.013),
        "bun": ((0.0, -0.042 + lean, 0.978), (0.0, -0.052 + lean, 0.972), 0.028, 0.028),
    }
    if person.hair_style not in strands:
        return []
    start, end, first, last = strands[person.hair_style]
    behind = view.cos > -0.1
    order = 0.25 if not behind else -0.1 if person.hair_style == "long" else 0.05
    draw = partial(capsule, canvas, view(start), view(end), (first * unit, last * unit), plain(person.hair), folds=0.15)
    return [(order, draw)]
