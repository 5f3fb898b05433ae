"""Where the joints of a walking person are, and where the camera sees them.

Body axes: x to the right of the picture for a person who faces the camera, y ahead of the person, z up, the origin on
the ground between the feet; the unit is the body height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reid.data.synthetic.appearance import Appearance

Point = tuple[float, float, float]
Joints = tuple[Point, Point, Point]


@dataclass(frozen=True)
class Pose:
    """yaw: 0 faces the camera, pi turns the back (radians); stride: swing of the legs (radians); phase of the walk.

    raised: the arm that is bent as with a telephone, -1, 0 (none) or +1. lean: of the head ahead, in body heights.
    """

    yaw: float
    stride: float
    phase: float
    raised: int = 0
    lean: float = 0.01


@dataclass(frozen=True)
class Placement:
    """Where the figure stands in the picture: pixels of a body height, the ground point, the horizontal stretch.

    pitch: how steeply the camera looks down (radians); perspective: how much larger what is higher up appears.
    """

    scale: float
    middle: float
    feet: float
    aspect: float = 1.0
    pitch: float = 0.15
    perspective: float = 0.1


class Projection:
    """Body coordinates -> (column, row) in pixels, for a body that has sunk by `drop` as its legs spread."""

    def __init__(self, pose: Pose, place: Placement, drop: float = 0.0) -> None:
        self.place = place
        self.drop = drop
        self.cos, self.sin = math.cos(pose.yaw), math.sin(pose.yaw)
        self._rise, self._sink = math.cos(place.pitch), math.sin(place.pitch)

    def __call__(self, point: Point) -> tuple[float, float]:
        x, y, z = point
        column = self.place.middle + (x * self.cos + y * self.sin) * self.unit(z)
        height = (z - self.drop) * self._rise - self.depth(x, y) * self._sink
        return column, self.place.feet - self.place.scale * height

    def unit(self, z: float) -> float:
        """Pixels of one body height across the picture at height z."""
        return self.place.scale * self.place.aspect * (1.0 + self.place.perspective * (z - 0.5))

    def depth(self, x: float, y: float) -> float:
        """How much nearer to the camera than the body's axis, in body heights."""
        return y * self.cos - x * self.sin

    def half_width(self, wide: float, deep: float, z: float) -> float:
        """Pixels from the middle to the outline of an upright ellipse with these half axes."""
        return math.hypot(wide * self.cos, deep * self.sin) * self.unit(z)


def leg_joints(person: Appearance, pose: Pose, side: int) -> Joints:
    """Hip, knee and ankle of one leg (side -1 or +1); the swinging leg bends its knee."""
    swing = side * pose.stride * math.sin(pose.phase)
    shin = swing - 0.08 - 0.9 * pose.stride * max(0.0, side * math.cos(pose.phase))
    thigh_length, shin_length = 0.235 * person.leg_length, 0.225 * person.leg_length
    x, z = side * 0.045 * person.girth, 0.50 * person.leg_length
    knee = (x, thigh_length * math.sin(swing), z - thigh_length * math.cos(swing))
    ankle = (0.9 * x, knee[1] + shin_length * math.sin(shin), knee[2] - shin_length * math.cos(shin))
    return (x, 0.0, z), knee, ankle


def arm_joints(person: Appearance, pose: Pose, side: int) -> Joints:
    """Shoulder, elbow and wrist of one arm, which swings against the leg of its side."""
    swing = -0.8 * side * pose.stride * math.sin(pose.phase)
    bend, inward = 0.22 + 0.5 * max(0.0, swing), 0.1
    if pose.raised == side:
        swing, bend, inward = 0.25, 2.0, 0.55
    x, z = side * (person.shoulder - 0.012), 0.795
    out = 0.020 + 0.01 * person.girth
    elbow = (x + side * out, 0.165 * math.sin(swing), z - 0.165 * math.cos(swing))
    lower = swing + bend
    wrist = (elbow[0] - side * 0.14 * inward, elbow[1] + 0.14 * math.sin(lower), elbow[2] - 0.14 * math.cos(lower))
    return (x, 0.0, z), elbow, wrist


def between(start: Point, end: Point, share: float) -> Point:
    """The point at a share of the way (beyond `end` above 1)."""
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z
