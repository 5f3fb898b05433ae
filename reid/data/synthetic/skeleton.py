"""Joints of a walking person and their projection to the image.

Body axes: x to the right of the image for a person who faces the camera, y ahead of the person, z up, with the origin
on the ground between the feet. The unit is the body height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reid.data.synthetic.appearance import Appearance

Point = tuple[float, float, float]
Joints = tuple[Point, Point, Point]


@dataclass(frozen=True)
class Pose:
    """Pose of a walking person.

    Attributes:
        yaw: Orientation in radians: 0 faces the camera, pi faces away.
        stride: Swing of the legs in radians.
        phase: Phase of the walk in radians.
        raised: Arm bent as if holding a phone: -1, 0 (none) or +1.
        lean: Forward shift of the head in body heights.
    """

    yaw: float
    stride: float
    phase: float
    raised: int = 0
    lean: float = 0.01


@dataclass(frozen=True)
class Placement:
    """Position of a figure in the image.

    Attributes:
        scale: Pixels per body height.
        middle: Column of the figure in pixels.
        feet: Row of the ground point in pixels.
        aspect: Factor by which the figure is stretched horizontally.
        pitch: Downward angle of the camera in radians.
        perspective: Relative magnification per body height above the ground.
    """

    scale: float
    middle: float
    feet: float
    aspect: float = 1.0
    pitch: float = 0.15
    perspective: float = 0.1


class Projection:
    """Projection from body coordinates to (column, row) in pixels.

    Args:
        pose: Pose of the person.
        place: Position of the figure.
        drop: How far the body is lowered by the spread of its legs, in body heights.
    """

    def __init__(self, pose: Pose, place: Placement, drop: float = 0.0) -> None:
        self.place = place
        self.drop = drop
        self.cos, self.sin = math.cos(pose.yaw), math.sin(pose.yaw)
        self._rise, self._sink = math.cos(place.pitch), math.sin(place.pitch)

    def __call__(self, point: Point) -> tuple[float, float]:
        """Project a point to (column, row) in pixels."""
        x, y, z = point
        column = self.place.middle + (x * self.cos + y * self.sin) * self.unit(z)
        height = (z - self.drop) * self._rise - self.depth(x, y) * self._sink
        return column, self.place.feet - self.place.scale * height

    def unit(self, z: float) -> float:
        """Compute the horizontal pixels per body height.

        Args:
            z: Height above the ground in body heights.

        Returns:
            Pixels.
        """
        return self.place.scale * self.place.aspect * (1.0 + self.place.perspective * (z - 0.5))

    def depth(self, x: float, y: float) -> float:
        """Compute how much closer to the camera than the body's axis a point is.

        Args:
            x: x of the point in body coordinates, in body heights.
            y: y of the point in body coordinates, in body heights.

        Returns:
            Distance in body heights.
        """
        return y * self.cos - x * self.sin

    def half_width(self, wide: float, deep: float, z: float) -> float:
        """Compute the projected half width of a horizontal ellipse.

        Args:
            wide: Half axis along x in body heights.
            deep: Half axis along y in body heights.
            z: Height above the ground in body heights.

        Returns:
            Pixels from the center to the outline.
        """
        return math.hypot(wide * self.cos, deep * self.sin) * self.unit(z)


def leg_joints(person: Appearance, pose: Pose, side: int) -> Joints:
    """Compute the joints of one leg; the knee of the swinging leg is bent.

    Args:
        person: Identity with the body measures.
        pose: Orientation of the body and phase of the step.
        side: Side of the body, -1 or +1.

    Returns:
        Hip, knee and ankle.
    """
    swing = side * pose.stride * math.sin(pose.phase)
    shin = swing - 0.08 - 0.9 * pose.stride * max(0.0, side * math.cos(pose.phase))
    thigh_length, shin_length = 0.235 * person.leg_length, 0.225 * person.leg_length
    x, z = side * 0.045 * person.girth, 0.50 * person.leg_length
    knee = (x, thigh_length * math.sin(swing), z - thigh_length * math.cos(swing))
    ankle = (0.9 * x, knee[1] + shin_length * math.sin(shin), knee[2] - shin_length * math.cos(shin))
    return (x, 0.0, z), knee, ankle


def arm_joints(person: Appearance, pose: Pose, side: int) -> Joints:
    """Compute the joints of one arm, which swings opposite to the leg of its side.

    Args:
        person: Identity with the body measures.
        pose: Orientation of the body and phase of the step.
        side: Side of the body, -1 or +1.

    Returns:
        Shoulder, elbow and wrist.
    """
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


def interpolate(start: Point, end: Point, fraction: float) -> Point:
    """Interpolate between two points.

    Args:
        start: Point at 0.
        end: Point at 1.
        fraction: Position; above 1, beyond `end`.

    Returns:
        (x, y, z) in body coordinates.
    """
    x, y, z = (a + fraction * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z
