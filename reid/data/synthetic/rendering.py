"""Rendering of one image: background, shadow, figure, occlusion, camera, JPEG."""

from __future__ import annotations

import dataclasses
import io
import math
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from reid.data.synthetic.appearance import Appearance, Color, pick, sample_appearance
from reid.data.synthetic.background import cloud
from reid.data.synthetic.clothing import level, plain
from reid.data.synthetic.figure import render_figure
from reid.data.synthetic.layout import PARTS, ImageSpec
from reid.data.synthetic.scene import HEIGHT, WIDTH, Camera, Shot, Walk, sample_camera, sample_shot, sample_walk
from reid.data.synthetic.seeding import Stream, generator
from reid.data.synthetic.shapes import Canvas, Light, capsule, ellipsoid, profile
from reid.data.synthetic.skeleton import Placement

SCALE = 1.25
"""Canvas pixels per pixel of the final image."""


class Renderer:
    """Renders the images of one seed.

    Each object has its own random stream (see `seeding`), so a single rendered image has the same bytes as in the whole
    dataset. Cameras, persons and walks are created on first use.

    Args:
        seed: Seed of the dataset.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        tiles = generator(seed, Stream.TILES)
        rows, columns = round(HEIGHT * SCALE), round(WIDTH * SCALE)
        folds = cloud(tiles, 3 * rows, 3 * columns, (3 * rows // 5, 3 * columns // 9))
        self._folds = folds + 0.5 * cloud(tiles, 3 * rows, 3 * columns, (3 * rows // 14, 3 * columns // 12))
        self._noise = tiles.standard_normal((2 * HEIGHT, 2 * WIDTH, 3), dtype=np.float32)
        self.camera = lru_cache(maxsize=None)(self._camera)
        self.person = lru_cache(maxsize=16)(self._person)  # images are ordered by person and walk
        self.walk = lru_cache(maxsize=16)(self._walk)

    def _camera(self, number: int) -> Camera:
        return sample_camera(generator(self.seed, Stream.CAMERA, number), SCALE)

    def _person(self, subject: int) -> Appearance:
        return sample_appearance(generator(self.seed, *_subject_key(subject)))

    def _walk(self, subject: int, camera: int) -> Walk:
        return sample_walk(generator(self.seed, Stream.WALK, *_subject_key(subject), camera), self.camera(camera))

    def jpeg(self, spec: ImageSpec) -> bytes:
        """Render one image.

        Args:
            spec: Identity, camera and kind of the image.

        Returns:
            Content of a JPEG file of HEIGHT x WIDTH pixels.
        """
        part = tuple(PARTS.values()).index(spec.part)
        rng = generator(self.seed, Stream.IMAGE, part, *_subject_key(spec.subject), spec.camera, spec.index)
        camera = self.camera(spec.camera)
        walk = self.walk(spec.subject, spec.camera)
        shot = sample_shot(rng, camera, walk, SCALE)
        if spec.kind == "cut":
            shot = dataclasses.replace(shot, place=_wrong_detection(rng, shot.place))
        canvas = self._canvas(rng, camera, shot)
        if spec.kind != "clutter":
            if shot.bystander:
                self._stranger(rng, canvas, shot, behind=True)
            _ground_shadow(canvas, shot.place, camera.light)
            render_figure(canvas, self.person(spec.subject), shot.pose, shot.place)
            if shot.occluded:
                self._occlude(rng, canvas, shot)
        return self._develop(rng, canvas.pixels, camera, shot)

    def _canvas(self, rng: np.random.Generator, camera: Camera, shot: Shot) -> Canvas:
        rows, columns = round(HEIGHT * SCALE), round(WIDTH * SCALE)
        _, view_rows, view_columns = camera.view.shape
        row = int(shot.row * (view_rows - rows))
        column = int((shot.column - math.floor(shot.column)) * (view_columns - columns))
        pixels = camera.view[:, row : row + rows, column : column + columns].copy()
        light = dataclasses.replace(camera.light, x=camera.light.x + shot.light_shift)
        fold_row, fold_column = (int(rng.integers(2 * size)) for size in (rows, columns))
        return Canvas(pixels, light, self._folds[fold_row : fold_row + rows, fold_column : fold_column + columns])

    def _stranger(self, rng: np.random.Generator, canvas: Canvas, shot: Shot, *, behind: bool) -> None:
        """Draw another person at the side: smaller and higher behind the person, larger and lower in front."""
        side = 1.0 if rng.random() < 0.5 else -1.0
        size = rng.uniform(0.55, 0.95) if behind else rng.uniform(1.0, 1.15)
        aside = rng.uniform(0.30, 0.50) if behind else rng.uniform(0.42, 0.52)
        pose = dataclasses.replace(shot.pose, yaw=rng.uniform(0.0, 2.0 * math.pi), phase=rng.uniform(0.0, 6.0))
        place = dataclasses.replace(
            shot.place,
            scale=shot.place.scale * size,
            middle=canvas.width * (0.5 + side * aside),
            feet=shot.place.feet + (size - 1.0) * 0.35 * canvas.height,
        )
        render_figure(canvas, sample_appearance(rng), pose, place)

    def _occlude(self, rng: np.random.Generator, canvas: Canvas, shot: Shot) -> None:
        kind = pick(rng, (("stranger", 0.35), ("post", 0.2), ("crate", 0.2), ("bush", 0.25)))
        width, height = canvas.width, canvas.height
        if kind == "stranger":
            self._stranger(rng, canvas, shot, behind=False)
        elif kind == "post":
            x, gray = rng.uniform(0.1, 0.9) * width, rng.uniform(50.0, 170.0)
            radius = rng.uniform(0.025, 0.06) * width
            capsule(canvas, (x, -9.0), (x, height + 9.0), (radius, radius), plain((gray, gray, gray)))
        elif kind == "crate":
            tone, top = rng.uniform(0.5, 1.2), rng.uniform(0.68, 0.85) * height
            color: Color = (150 * tone, 126 * tone, 92 * tone)
            middle, half = rng.uniform(0.1, 0.9) * width, rng.uniform(0.25, 0.45) * width
            profile(canvas, np.array([top, height + 20.0]), np.full(2, middle), np.full(2, half), plain(color))
        else:
            middle, top = rng.uniform(0.0, 1.0) * width, rng.uniform(0.72, 0.88) * height
            for _ in range(9):
                green, radius = rng.uniform(0.6, 1.2), rng.uniform(0.06, 0.13) * width
                leaf = partial(_leaf, level((74 * green, 104 * green, 58 * green)))
                at = (middle + 0.22 * width * rng.normal(), top + rng.uniform(0.0, 0.3) * height)
                ellipsoid(canvas, at, (radius * 1.3, radius), leaf)

    def _develop(self, rng: np.random.Generator, pixels: np.ndarray, camera: Camera, shot: Shot) -> bytes:
        """Apply sensor and encoder: resolution, white balance, exposure, noise, resizing to the final size, JPEG."""
        np.minimum(pixels, 255.0, out=pixels)
        np.maximum(pixels, 0.0, out=pixels)
        image = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels.astype(np.uint8)])
        share = min(1.0, shot.sharpness)
        rows, columns = round(HEIGHT * share), round(WIDTH * share)
        image = image.resize((columns, rows), Image.Resampling.BOX).convert("RGB", camera.color_matrix(shot.gain))
        row, column = rng.integers(HEIGHT), rng.integers(WIDTH)
        noisy = camera.noise * self._noise[row : row + rows, column : column + columns]
        noisy += np.asarray(image)
        np.minimum(noisy, 254.5, out=noisy)
        np.maximum(noisy, 0.0, out=noisy)
        image = Image.fromarray((noisy + 0.5).astype(np.uint8))
        if image.size != (WIDTH, HEIGHT):
            image = image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=shot.quality)
        return encoded.getvalue()


def _subject_key(subject: int) -> tuple[Stream, int]:
    """Return the stream of an identity (subject > 0) or of a stranger who is in no other image (subject < 0)."""
    return Stream.IDENTITY if subject > 0 else Stream.STRANGER, abs(subject)


def _leaf(color: np.ndarray, right: np.ndarray, down: np.ndarray, toward: np.ndarray) -> np.ndarray:
    return color


def _wrong_detection(rng: np.random.Generator, place: Placement) -> Placement:
    """Sample a wrong detection: half a body, legs only, or a body at the edge."""
    kind = rng.integers(3)
    if kind == 0:
        larger, lower = rng.uniform(1.7, 2.4), rng.uniform(1.2, 2.2)
        return dataclasses.replace(place, scale=place.scale * larger, feet=place.feet * lower)
    if kind == 1:
        side = 1.0 if rng.random() < 0.5 else -1.0
        return dataclasses.replace(place, middle=place.middle * (1.0 + side * rng.uniform(0.65, 1.05)))
    up = 1.0 if rng.random() < 0.5 else -1.0
    return dataclasses.replace(place, feet=place.feet * (1.0 + up * rng.uniform(0.35, 0.6)))


def _ground_shadow(canvas: Canvas, place: Placement, light: Light) -> None:
    half_x, half_y = 0.17 * place.scale, (0.02 + 0.10 * math.sin(place.pitch)) * place.scale
    x = place.middle - 0.12 * place.scale * light.x / max(light.z, 0.1)
    at = canvas.window(x - half_x, place.feet - half_y, x + half_x, place.feet + half_y)
    if at is not None:
        right, down = (canvas.x[at[1]] - x) / half_x, (canvas.y[at[0]] - place.feet) / half_y
        canvas.pixels[:, at[0], at[1]] *= 1.0 - 0.45 * np.maximum(1.0 - right * right - down * down, 0.0)
