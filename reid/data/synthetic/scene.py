"""Camera and image: how a place, a walk past a camera and a single detection change the picture of a person."""

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

# The difficulty of matching across cameras. All spreads are standard deviations; 0 switches an effect off.
WHITE_BALANCE_SPREAD = 0.06
"""Of the logarithm of a camera's gain of red against blue; a third of it of green against both."""
EXPOSURE_SPREAD = 0.12
"""Of the logarithm of a camera's gain."""
SHOT_EXPOSURE_SPREAD = 0.08
"""The same of one image: sun, shade, automatic exposure."""
JITTER = 0.035
"""Of the detector's box: shift and size, as a share of the box."""
OCCLUDED_SHARE = 0.08
"""Images in which something stands before the person."""
BYSTANDER_SHARE = 0.10
"""Images in which somebody else shows at the side."""
NOISE = (1.5, 6.5)
"""Range of a camera's noise, in sRGB levels."""
SHARPNESS = (0.55, 1.0)
"""Range of a camera's resolution: pixels of the crop before it was resized, as a share of the final size."""
VIEW_HEIGHT = (0.03, 0.42)
"""Range of how steeply a camera looks down, in radians."""


@dataclass(frozen=True)
class Camera:
    """What all images of one camera share."""

    view: np.ndarray  # (3, rows, columns) float32
    gains: tuple[float, float, float]
    black: float
    contrast: float
    saturation: float
    noise: float
    sharpness: float
    pitch: float
    perspective: float
    light: Light
    yaws: tuple[tuple[float, float], ...]  # walking directions past this camera: (yaw, share)

    def color_matrix(self, gain: float) -> tuple[float, ...]:
        """Saturation, white balance, exposure and contrast as the 3x4 matrix (row by row) from RGB to RGB."""
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
    """What the images of one person passing one camera share."""

    yaw: float
    stride: float
    column: float  # where in the camera's view, share of the width
    exposure: float
    raised: int


@dataclass(frozen=True)
class Shot:
    """One image: pose and place of the figure, the piece of background, what disturbs, and the encoder's quality."""

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
    """Draw a camera and its place; scale: pixels of the background per pixel of the final image."""
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
    """Draw how a person passes a camera."""
    return Walk(
        yaw=pick(rng, camera.yaws) + 0.25 * rng.normal(),
        stride=rng.uniform(0.05, 0.55) if rng.random() < 0.85 else 0.04,
        column=rng.random(),
        exposure=0.5 * SHOT_EXPOSURE_SPREAD * rng.normal(),
        raised=int(rng.integers(-1, 2)) if rng.random() < 0.18 else 0,
    )


def sample_shot(rng: np.random.Generator, camera: Camera, walk: Walk, scale: float) -> Shot:
    """Draw one image of a walk; scale: canvas pixels per pixel of the final image."""
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
