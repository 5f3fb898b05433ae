"""Synthetic features similar to those of a trained network, and files to pass them to other processes.

NumPy is imported late: see `measuring.limit_threads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from reid.records import Features


def without_junk(gallery: Features) -> Features:
    from reid.records import JUNK, Features

    kept = gallery.identities != JUNK
    return gallery if kept.all() else Features(gallery.values[kept], gallery.identities[kept], gallery.cameras[kept])


def save(folder: Path, query: Features, gallery: Features) -> None:
    """Write both sides as arrays, for other processes."""
    import numpy as np

    for side, features in (("query", query), ("gallery", gallery)):
        np.save(folder / f"{side}.npy", features.values)
        np.save(folder / f"{side}_labels.npy", np.stack([features.identities, features.cameras]))


def load(folder: Path, *, mapped: bool = False) -> tuple[Features, Features]:
    """Load the arrays of `save`, with the gallery memory-mapped if `mapped`."""
    import numpy as np

    from reid.records import Features

    labels = [np.load(folder / f"{side}_labels.npy") for side in ("query", "gallery")]
    query = Features(np.load(folder / "query.npy"), *labels[0])
    return query, Features(np.load(folder / "gallery.npy", mmap_mode="r" if mapped else None), *labels[1])


@dataclass(frozen=True)
class FeatureModel:
    """Distribution of features: kinds (75, 40), identities (751, 40), directions (40, width), noise per dimension."""

    kinds: np.ndarray
    identities: np.ndarray
    directions: np.ndarray
    noise: np.float32

    @classmethod
    def sample(cls, width: int, rng: np.random.Generator) -> FeatureModel:
        """Sample the parameters of the distribution."""
        import numpy as np

        weight = np.arange(1, 41) ** -0.3
        kinds = rng.normal(size=(75, 40))
        identities = kinds[rng.integers(0, 75, 751)] + 0.3 * rng.normal(size=(751, 40))
        directions = (weight[:, None] * rng.normal(size=(40, width))).astype(np.float32)
        return cls(kinds, identities, directions, np.float32(0.25 * np.sqrt((weight**2).sum())))

    def images(self, identities: np.ndarray, rng: np.random.Generator) -> Features:
        """Sample one feature per entry; each entry with identity 0 is a different person."""
        import numpy as np

        from reid.records import Features

        position = self.identities[identities]
        alone = np.flatnonzero(identities == 0)
        position[alone] = self.kinds[rng.integers(0, 75, len(alone))] + 0.3 * rng.normal(size=(len(alone), 40))
        strays = 0.25 * np.exp(0.6 * rng.normal(size=(len(position), 1)))
        values = (position + strays * rng.normal(size=position.shape)).astype(np.float32) @ self.directions
        values += self.noise * rng.normal(size=values.shape).astype(np.float32)
        return Features(values, identities, rng.integers(1, 7, len(identities)))


def clustered(queries: int, gallery: int, width: int) -> tuple[Features, Features]:
    """Sample features of 750 identities on six cameras, as difficult as those of a trained network (mAP 0.70).

    Identities come in similar-looking kinds, and images differ in their distance from their identity; both happen in 40
    directions of unequal weight, and noise is added to every dimension.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    model = FeatureModel.sample(width, rng)
    distractor = rng.random(gallery) < 0.18
    query = model.images(rng.integers(1, 751, queries), rng)
    return query, model.images(np.where(distractor, 0, rng.integers(1, 751, gallery)), rng)
