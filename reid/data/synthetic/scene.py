"""Cameras, walks past a camera and single detections, and how they change the image of a person."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reid.data.synthetic.appearance import pick
from reid.data.synthetic.background import render_view
from reid.data.synthetic.shapes import Light
from reid.data.synthetic.skeleton import Placement, Pose

HEIGHT, WIDTH = 128, 64
"""Size of every image in pixels."""

# Difficulty of matching across cameras. All spreads are standard deviations; 0 disables an effect.
WHITE_BALANCE_SPREAD = 0.06
"""Spread of the logarithm of a camera's gain of red against blue; a third of it for green against both."""
EXPOSURE_SPREAD = 0.12
"""Spread of the logarithm of a camera's gain."""
SHOT_EXPOSURE_SPREAD = 0.08
"""The same for one image: sun, shade, automatic exposure."""
JITTER = 0.035
"""Spread of shift and size of the detector's box, as a fraction of the box."""
OCCLUDED_SHARE = 0.08
"""Fraction of images in which an object occludes the person."""
BYSTANDER_SHARE = 0.10
"""Fraction of images with another person at the side."""
NOISE = (1.5, 6.5)
"""Range of a camera's noise in sRGB levels."""
SHARPNESS = (0.55, 1.0)
"""Range of a camera's resolution: size of the crop before resizing, as a fraction of the final size."""
VIEW_HEIGHT = (0.03, 0.42)
"""Range of the downward angle of a camera in radians."""


@dataclass(frozen=True)
class Camera:
    """Properties shared by all images of one camera.

    Attributes:
        view: (3, rows, columns) float32, the background.
        gains: Gains of red, green and blue.
        black: Black level in sRGB levels.
        contrast: Factor around 1.
        saturation: Factor around 1.
        noise: Standard deviation of the noise in sRGB levels.
        sharpness: Resolution as a fraction of the final size.
        pitch: Downward angle in radians.
        perspective: See `skeleton.Placement`.
        light: Light of the scene.
        yaws: Walking directions past this camera: (yaw in radians, share).
    """

    view: np.ndarray
    gains: tuple[float, float, float]
    black: float
    contrast: float
    saturation: float
    noise: float
    sharpness: float
    pitch: float
    perspective: float
    light: Light
    yaws: tuple[tuple[float, float], ...]

    def color_matrix(self, gain: float) -> tuple[float, ...]:
        """Compute saturation, white balance, exposure and contrast as one matrix.

        Args:
            gain: Gain of the image.

        Returns:
            3x4 matrix from RGB to RGB, row by row.
        """
        gray = (0.30, 0.59, 0.11)
        offset = 118.0 * (1.0 - self.contrast) + self.black
        rows = []
        for channel, own in enumerate(self.gains):
            factor = own * gain * self.contrast
            mix = [factor * (1.0 - self.saturation) * share for share in gray]
            mix[channel] += factor * self.saturation
            rows += [*mix, offset]
        return tuple(rows)


@dataclass(frozen=True)
class Walk:
    """Properties shared by the images of one person passing one camera.

    Attributes:
        yaw: Orientation in radians.
        stride: Swing of the legs in radians.
        column: Position in the camera's view, as a fraction of the width.
        exposure: Logarithm of the gain.
        raised: Raised arm, see `skeleton.Pose`.
    """

    yaw: float
    stride: float
    column: float
    exposure: float
    raised: int


@dataclass(frozen=True)
class Shot:
    """Properties of one image.

    Attributes:
        pose: Pose of the person.
        place: Position of the person.
        column: Position of the window in the camera's view, as a fraction of the width.
        row: Position of the window in the camera's view, as a fraction of the height.
        gain: Gain of the image.
        light_shift: Change of the light's x component.
        sharpness: Resolution as a fraction of the final size.
        quality: JPEG quality as Pillow takes it.
        occluded: Whether an object occludes the person.
        bystander: Whether another person is at the side.
    """

    pose: Pose
    place: Placement
    column: float
    row: float
    gain: float
    light_shift: float
    sharpness: float
    quality: int
    occluded: bool
    bystander: bool


def sample_camera(rng: np.random.Generator, scale: float) -> Camera:
    """Sample a camera and render its background.

    Args:
        rng: Random generator of the camera.
        scale: Pixels of the background per pixel of the final image.

    Returns:
        Camera with its rendered background and color response.
    """
    pitch = rng.uniform(*VIEW_HEIGHT)
    horizon = 0.52 - 1.15 * pitch + 0.06 * rng.normal()
    warm, green = WHITE_BALANCE_SPREAD * rng.normal(size=2) * (1.0, 0.33)
    gain = EXPOSURE_SPREAD * rng.normal()
    main = rng.uniform(0.0, 2.0 * math.pi)
    strength = rng.uniform(0.16, 0.42)
    angle = rng.uniform(-1.3, 1.3)
    return Camera(
        view=render_view(rng, scale, horizon),
        gains=(math.exp(gain + warm), math.exp(gain + green), math.exp(gain - warm)),
        black=rng.uniform(0.0, 16.0),
        contrast=rng.uniform(0.85, 1.15),
        saturation=rng.uniform(0.70, 1.15),
        noise=rng.uniform(*NOISE),
        sharpness=rng.uniform(*SHARPNESS),
        pitch=pitch,
        perspective=rng.uniform(0.0, 0.3) * (0.5 + pitch),
        light=Light(0.98 - strength, strength * math.sin(angle), -0.10, strength * math.cos(angle) + 0.08),
        yaws=((main, 0.45), (main + math.pi, 0.35), (main + 0.5 * math.pi, 0.10), (main - 0.5 * math.pi, 0.10)),
    )


def sample_walk(rng: np.random.Generator, camera: Camera) -> Walk:
    """Sample how a person passes a camera.

    Args:
        rng: Random generator of the walk.
        camera: Camera that the person passes.

    Returns:
        Properties that all images of the walk share.
    """
    return Walk(
        yaw=pick(rng, camera.yaws) + 0.25 * rng.normal(),
        stride=rng.uniform(0.05, 0.55) if rng.random() < 0.85 else 0.04,
        column=rng.random(),
        exposure=0.5 * SHOT_EXPOSURE_SPREAD * rng.normal(),
        raised=int(rng.integers(-1, 2)) if rng.random() < 0.18 else 0,
    )


def sample_shot(rng: np.random.Generator, camera: Camera, walk: Walk, scale: float) -> Shot:
    """Sample the properties of one image of a walk.

    Args:
        rng: Random generator of the image.
        camera: Camera that takes the image.
        walk: Properties that the images of the walk share.
        scale: Canvas pixels per pixel of the final image.

    Returns:
        Pose, position, lighting and quality of the image.
    """
    shift_x, shift_y, size, aspect = JITTER * np.clip(rng.normal(size=4), -2.2, 2.2)
    height = HEIGHT * scale * 0.93 / math.cos(camera.pitch) * (1.0 + size)
    return Shot(
        pose=Pose(
            yaw=walk.yaw + 0.22 * rng.normal(),
            stride=walk.stride,
            phase=rng.uniform(0.0, 2.0 * math.pi),
            raised=walk.raised,
            lean=rng.uniform(0.0, 0.02),
        ),
        place=Placement(
            scale=height,
            middle=WIDTH * scale * (0.5 + shift_x),
            feet=HEIGHT * scale * (0.955 + 0.6 * shift_y + 0.3 * size) - 0.05 * height * math.sin(camera.pitch),
            aspect=1.02 + 1.2 * aspect,
            pitch=camera.pitch,
            perspective=camera.perspective,
        ),
        column=walk.column + 0.08 * rng.normal(),
        row=rng.random(),
        gain=math.exp(walk.exposure + SHOT_EXPOSURE_SPREAD * rng.normal()),
        light_shift=0.10 * rng.normal(),
        sharpness=camera.sharpness * rng.uniform(0.8, 1.1),
        quality=int(rng.integers(55, 93)),
        occluded=rng.random() < OCCLUDED_SHARE,
        bystander=rng.random() < BYSTANDER_SHARE,
    )
