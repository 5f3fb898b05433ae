"""Images on which an export is compared with PyTorch: the user's crops, or synthetic ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.data.loading.user_images import ImageList
from reid.data.synthetic.layout import plan_images
from reid.data.synthetic.rendering import Renderer
from reid.errors import InputError
from reid.io.image_files import walk_images

MAX_IMAGES = 64
NUM_SYNTHETIC = 20


def read_crops(
    paths: Sequence[Path], size: tuple[int, int], *, resize: str = "bilinear", max_images: int = MAX_IMAGES
) -> Tensor:
    """Read images from files and folders.

    Args:
        paths: Image files, and folders that are searched recursively.
        size: Height and width to resize to, antialiased.
        resize: "bilinear" or "bicubic".
        max_images: Limit; with more images, as many are chosen at equal intervals.

    Returns:
        (N, 3, height, width) uint8 RGB.

    Raises:
        InputError: If a folder holds no image, or an image cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        files = sorted(path / name for name in walk_images(path)) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: neither the folder nor its subfolders hold an image")
        found += files
    chosen = [found[index] for index in np.linspace(0, len(found) - 1, min(max_images, len(found))).astype(int)]
    return _decode(ImageList(chosen, size, resize, threads=1))


def synthetic_crops(size: tuple[int, int], *, count: int = NUM_SYNTHETIC) -> Tensor:
    """Generate images of synthetic persons, the same ones on every call.

    Args:
        size: Height and width.
        count: Number of images.

    Returns:
        (count, 3, height, width) uint8 RGB.
    """
    renderer = Renderer(0)
    persons = [spec for spec in plan_images("demo", "market", 0) if spec.kind == "person"]
    chosen = [persons[index] for index in np.linspace(0, len(persons) - 1, count).astype(int)]
    return _decode(ImageList([Image.open(io.BytesIO(renderer.jpeg(one))) for one in chosen], size, threads=1))


def _decode(images: ImageList) -> Tensor:
    return torch.from_numpy(np.stack([images.decode(number) for number in range(len(images))]))
