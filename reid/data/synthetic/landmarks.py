"""Views of landmarks with a ground truth, in the published layout of revisited Oxford and Paris."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageEnhance

from reid.data.synthetic.building import HEIGHT, WIDTH, render_building
from reid.data.synthetic.dataset import write_dataset
from reid.data.synthetic.seeding import VERSION, Stream, generator
from reid.errors import InputError, unknown_name
from reid.progress import track

NAME = "landmarks"
LISTS = ("easy", "hard", "junk")
KINDS = ("query", *LISTS, "distractor")
SHAPES = ((320, 240), (240, 320), (300, 200), (256, 256))
"""Widths and heights of the images."""


@dataclass(frozen=True)
class Size:
    """Counts of a dataset.

    Attributes:
        landmarks: Number of landmarks.
        queries: Number of queries per landmark.
        easy: Number of easy gallery views per landmark.
        hard: Number of hard gallery views per landmark.
        junk: Number of junk gallery views per landmark.
        distractors: Number of views of other buildings.
    """

    landmarks: int
    queries: int
    easy: int
    hard: int
    junk: int
    distractors: int

    @property
    def gallery(self) -> int:
        """Number of gallery images."""
        return self.landmarks * (self.easy + self.hard + self.junk) + self.distractors


SIZES = {"tiny": Size(6, 1, 3, 3, 2, 24), "demo": Size(24, 2, 5, 5, 3, 200)}


@dataclass(frozen=True)
class View:
    """One image to render.

    Attributes:
        building: Number of the building.
        kind: One of KINDS.
        index: Index of the image among those of its building and kind.
    """

    building: int
    kind: str
    index: int


def generate_landmarks(output: Path, *, size: str, seed: int = 0, progress: bool = True) -> Path:
    """Generate a dataset of landmarks.

    Easy views show a landmark as its queries do, hard ones from a distance, at dusk or behind a tree, and junk shows
    two fifths of its canvas. The queries, whose box contains the landmark, are not in the gallery, as in the published
    sets. The images appear in `output` all at once. The same arguments and the same version of Pillow give the same
    images.

    Args:
        output: A folder that does not exist, is empty, or contains the same dataset already (then nothing is done). It
            gets `landmarks/gnd_landmarks.pkl`, `landmarks/jpg/*.jpg` and `synthetic.json`.
        size: "tiny" or "demo".
        seed: Seed of the generator, 0 or more.
        progress: Whether to show a progress bar.

    Returns:
        `output`.

    Raises:
        InputError: If the size is unknown, the seed is negative, or `output` contains something else.
    """
    if size not in SIZES:
        raise unknown_name("size of the landmarks", size, tuple(SIZES))
    if seed < 0:
        raise InputError(f"the seed of the synthetic dataset is {seed}; it must be 0 or more")
    counts = SIZES[size]
    queries = counts.landmarks * counts.queries
    metadata: dict[str, Any] = {
        "size": size,
        "layout": "revisited",
        "seed": seed,
        "generator": VERSION,
        "pillow": PIL.__version__,
        "counts": {"landmarks": counts.landmarks, "queries": queries, "gallery": counts.gallery},
    }
    images = {f"{NAME}/jpg": queries + counts.gallery}
    return write_dataset(output, metadata, images, lambda folder: _write(folder / NAME, counts, seed, progress))


def _write(folder: Path, counts: Size, seed: int, progress: bool) -> None:
    (folder / "jpg").mkdir(parents=True)
    rng = generator(seed, Stream.LISTS)
    queries = [View(b, "query", i) for b in range(counts.landmarks) for i in range(counts.queries)]
    gallery = [
        View(b, kind, i) for b in range(counts.landmarks) for kind in LISTS for i in range(getattr(counts, kind))
    ]
    gallery += [View(counts.landmarks + i, "distractor", i) for i in range(counts.distractors)]
    gallery = [gallery[i] for i in rng.permutation(len(gallery))]
    names = [f"place_{number:06d}" for number in rng.permutation(len(queries) + len(gallery))]
    boxes = {}
    views = zip(names, [*queries, *gallery], strict=True)
    for name, view in track(views, "generating", total=len(names), unit="images", shown=progress):
        image, boxes[view] = render_view(seed, view)
        image.save(folder / "jpg" / f"{name}.jpg", quality=90)
    truth: list[dict[str, Any]] = [
        {
            "bbx": [float(value) for value in boxes[query]],
            **{
                kind: np.array([i for i, v in enumerate(gallery) if (v.building, v.kind) == (query.building, kind)])
                for kind in LISTS
            },
        }
        for query in queries
    ]
    content = {"imlist": names[len(queries) :], "qimlist": names[: len(queries)], "gnd": truth}
    # The published files use protocol 2.
    (folder / f"gnd_{NAME}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def render_view(seed: int, view: View) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Render one image.

    Args:
        seed: Seed of the dataset.
        view: Building, kind and index of the image.

    Returns:
        The RGB image and the box of the visible part of its building: left, top, right, bottom in pixels.
    """
    building = render_building(generator(seed, Stream.LANDMARK, view.building))
    rng = generator(seed, Stream.VIEW, view.building, KINDS.index(view.kind), view.index)
    width, height = SHAPES[rng.integers(len(SHAPES))]
    image, ground = _scenery(rng, width, height)
    hard, junk = view.kind == "hard", view.kind == "junk"
    fit = min(width / WIDTH, height / HEIGHT)
    scale = fit * (rng.uniform(0.5, 0.7) if hard else rng.uniform(0.8, 0.98))
    wide, high = round(WIDTH * scale), round(HEIGHT * scale)
    lean = rng.uniform(-0.18, 0.18) if hard else rng.uniform(-0.06, 0.06)
    # (x, y) of the result -> (x, y) of the building: its foot stays in place, its top leans.
    shear = (WIDTH / wide, lean * WIDTH / wide, -lean * HEIGHT / 2, 0, HEIGHT / high, 0)
    building = building.transform((wide, high), Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    foot = min(height, ground + round(rng.uniform(0.02, 0.1) * height))
    left = round(rng.uniform(0, max(width - wide, 1)))
    if junk:  # most of it outside the image
        left = round(width - 0.4 * wide) if rng.random() < 0.5 else round(-0.6 * wide)
    image.paste(building, (left, foot - high), building)
    layer = Image.new("L", image.size)
    layer.paste(building.getchannel("A"), (left, foot - high))
    box = layer.point(lambda alpha: 255 * (alpha > 127)).getbbox() or (0, 0, width, height)
    if hard and rng.random() < 0.5:
        _tree(image, rng, left + rng.uniform(0.2, 0.8) * wide, height, 0.7 * high)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.5, 0.85) if hard else rng.uniform(0.85, 1.1))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.5, 1.3) if hard else rng.uniform(0.8, 1.2))
    return image, (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def _scenery(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, int]:
    """Render sky, ground and trees; return the image and the row at which the ground begins."""
    sky = tuple(int(c + rng.integers(-30, 30)) for c in (158, 186, 214))
    ground = tuple(int(c + rng.integers(-25, 25)) for c in (128, 132, 112))
    horizon = round(rng.uniform(0.78, 0.9) * height)
    image = Image.new("RGB", (width, height), sky)
    ImageDraw.Draw(image).rectangle((0, horizon, width, height), fill=ground)
    for _ in range(rng.integers(0, 5)):
        _tree(image, rng, rng.uniform(0, width), horizon + rng.uniform(0, 0.1) * height, rng.uniform(0.1, 0.4) * height)
    return image, horizon


def _tree(image: Image.Image, rng: np.random.Generator, x: float, foot: float, high: float) -> None:
    draw, wide = ImageDraw.Draw(image), 0.3 * high
    draw.rectangle((x - 0.04 * high, foot - 0.5 * high, x + 0.04 * high, foot), fill=(84, 66, 50))
    for _ in range(7):
        cx, cy, radius = (
            x + rng.uniform(-0.5, 0.5) * wide,
            foot - rng.uniform(0.5, 0.9) * high,
            rng.uniform(0.4, 0.7) * wide,
        )
        green = tuple(int(c + rng.integers(-16, 16)) for c in (66, 100, 58))
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=green)
