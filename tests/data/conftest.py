"""Small generated datasets for the tests."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MARKET_NAMES: dict[str, tuple[str, ...]] = {
    "bounding_box_train": ("0002_c1s1_000451_03.jpg", "0002_c2s1_000501_01.jpg", "0007_c3s3_000551_01.jpg"),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c2s1_001151_00.jpg"),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_000301_01.jpg",
        "0003_c1s6_015971_02.jpg",
        "0003_c3s6_015996_02.jpg",
    ),
}


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (64, 128)) -> None:
    """A JPEG of soft noise; size: (width, height)."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


@pytest.fixture
def make_image() -> Callable[..., None]:
    return write_image


@pytest.fixture
def make_folder() -> Callable[..., Path]:
    """Write a dataset folder: part -> file names."""

    def make(folder: Path, names: Mapping[str, Sequence[str]] = MARKET_NAMES) -> Path:
        for part, files in names.items():
            (folder / part).mkdir(parents=True)
            for index, name in enumerate(files):
                write_image(folder / part / name, index)
        return folder

    return make


@pytest.fixture
def make_zip() -> Callable[..., Path]:
    """Zip a folder, with its name as prefix of every entry."""

    def make(archive: Path, folder: Path) -> Path:
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, f"{folder.name}/{path.relative_to(folder)}")
        return archive

    return make
