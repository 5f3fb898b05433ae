"""The images on which an exported file is compared with PyTorch: the user's own crops, or drawn ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.data.datasets.layout import is_image
from reid.data.loading.user_images import GivenImages
from reid.data.synthetic.drawing import World
from reid.data.synthetic.layout import plan
from reid.errors import InputError

MOST = 64
DRAWN = 20


def read_crops(paths: Sequence[Path], size: tuple[int, int], *, resize: str = "bilinear", most: int = MOST) -> Tensor:
    """(N, 3, height, width) uint8 RGB of files and of the images in folders and below, `most` spread over them all.

    resize: "bilinear" or "bicubic", with antialiasing.
    Raises InputError for a folder without images and for an image that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if is_image(p.name) and p.is_file()) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: holds no image, and none of its folders does")
        found += inside
    chosen = [found[place] for place in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]
    return _decoded(GivenImages(chosen, size, resize, threads=1))


def drawn_crops(size: tuple[int, int], *, count: int = DRAWN) -> Tensor:
    """(count, 3, height, width) uint8 RGB: people that the project draws, the same ones every time."""
    world = World(0)
    people = [picture for picture in plan("demo", "market", 0) if picture.kind == "person"]
    chosen = [people[place] for place in np.linspace(0, len(people) - 1, count).astype(int)]
    return _decoded(GivenImages([Image.open(io.BytesIO(world.jpeg(one))) for one in chosen], size, threads=1))


def _decoded(images: GivenImages) -> Tensor:
    return torch.from_numpy(np.stack([images.decode(number) for number in range(len(images))]))
