"""Folders of small files in place of crops, and an embedding function that maps their bytes to vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from reid.errors import InputError

DIM = 16


def vector(content: bytes) -> np.ndarray:
    """Map a content to a (DIM,) float32 unit vector."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


@dataclass
class FakeEmbed:
    """Records what it embeds; files that start with `broken` are unreadable, those with `zero` have a zero feature."""

    seen: list[str] = field(default_factory=list)

    def __call__(self, paths: Sequence[str]) -> np.ndarray:
        contents = [Path(path).read_bytes() for path in paths]
        for path, content in zip(paths, contents, strict=True):
            if content.startswith(b"broken"):
                raise InputError(f"image 0 of 1: {path}: no whole image")
        self.seen += paths
        return np.stack([vector(c) * (not c.startswith(b"zero")) for c in contents]).astype(np.float32)


@pytest.fixture
def embed() -> FakeEmbed:
    return FakeEmbed()


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Twelve files of three identities and two cameras, named 0001/c1_100.jpg and so on."""
    for identity in (1, 2, 3):
        for camera in (1, 2):
            for time in (100, 200):
                path = tmp_path / "crops" / f"{identity:04d}" / f"c{camera}_{time}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{identity} {camera} {time}".encode())
    return tmp_path / "crops"


@pytest.fixture
def make_vector() -> Callable[[bytes], np.ndarray]:
    return vector
