"""Folders of small files that stand for crops, and an embedder that makes vectors out of their bytes."""

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
    """(DIM,) float32 of length 1, by the content alone."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


@dataclass
class FakeEmbed:
    """Counts what it embeds; `broken` in a file makes it unreadable, `zero` gives it no feature."""

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
    """Twelve files of three people and two cameras, named 0001/c1_100.jpg and so on."""
    for person in (1, 2, 3):
        for camera in (1, 2):
            for time in (100, 200):
                path = tmp_path / "crops" / f"{person:04d}" / f"c{camera}_{time}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{person} {camera} {time}".encode())
    return tmp_path / "crops"


@pytest.fixture
def make_vector() -> Callable[[bytes], np.ndarray]:
    return vector
