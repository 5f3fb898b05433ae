"""Two-dimensional map of the embeddings of some identities, and how well it preserves neighborhoods."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from reid.errors import InputError, unknown_name
from reid.ranking.arrays import to_numpy
from reid.records import DISTRACTOR, Features

METHODS = ("tsne", "pca")
REDUCED = 50  # input dimensions of t-SNE, as in van der Maaten and Hinton 2008
MAX_POINTS = 2000
_MIN_POINTS = 5


@dataclass(frozen=True)
class SameIdentity:
    """Share in [0, 1] of points whose nearest other point (Euclidean, the first of equal ones) has their identity.

    Attributes:
        any_camera: Over all neighbors.
        other_camera: Over neighbors from other cameras only, for the points whose identity another camera has seen;
            None if there is no such point.
    """

    any_camera: float
    other_camera: float | None


@dataclass(frozen=True)
class EmbeddingMap:
    """N points in the plane.

    Attributes:
        method: One of `METHODS`.
        positions: (N, 2) float64, without unit.
        identities: (N,) int64.
        cameras: (N,) int64.
        from_query: (N,) bool, whether the image is from the query rather than the gallery.
        in_map: Neighbors of the same identity in the plane.
        in_space: Neighbors of the same identity in the feature space.
        chance: Share of neighbors of the same identity if every other point were equally likely.
    """

    method: str
    positions: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    from_query: np.ndarray
    in_map: SameIdentity
    in_space: SameIdentity
    chance: float

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values.

        Returns:
            The entry "map" of a side in `ranked_lists.json`; positions are rounded to 5 significant digits.
        """
        labels = zip(self.identities.tolist(), self.cameras.tolist(), self.from_query.tolist(), strict=True)
        return {
            "method": self.method,
            "points": [
                {"x": float(f"{x:.5g}"), "y": float(f"{y:.5g}"), "identity": identity, "camera": camera, "query": query}
                for (x, y), (identity, camera, query) in zip(self.positions.tolist(), labels, strict=True)
            ],
            "same_identity": {
                "map": dataclasses.asdict(self.in_map),
                "space": dataclasses.asdict(self.in_space),
                "chance": self.chance,
            },
        }


def check_method(method: str) -> None:
    """Check the name of a method, before expensive work.

    Args:
        method: Name to check.

    Raises:
        InputError: If the name is unknown.
    """
    if method not in METHODS:
        raise unknown_name("map", method, (*METHODS, "none"))


def embedding_map(
    query: Features, gallery: Features, *, method: str = "pca", identities: int = 16, images: int = 20, seed: int = 0
) -> EmbeddingMap | None:
    """Map images of randomly chosen query identities to the plane.

    Identities with at least two images in query and gallery together are candidates, junk and distractors are not. The
    choice depends on the labels and the seed only, so that two checkpoints are mapped on the same images.

    Args:
        query: Features with identities and cameras.
        gallery: Features with identities and cameras.
        method: "pca", the two directions of greatest variance, or "tsne" (van der Maaten and Hinton 2008) with
            perplexity 30 or a third of the points, after PCA to 50 dimensions and initialized with the first two.
        identities: Maximum number of identities.
        images: Maximum number of images per identity.
        seed: Seed of the choice and of t-SNE.

    Returns:
        The map, or None if fewer than 5 images are available.

    Raises:
        InputError: If the method is unknown, or `identities` * `images` is outside [1, 2000].
    """
    check_method(method)
    if min(identities, images) < 1 or identities * images > MAX_POINTS:
        raise InputError(
            f"a map of {identities} identities with {images} images each: it must have 1 to {MAX_POINTS} points"
        )
    labels = np.concatenate([query.identities, gallery.identities])
    rows = _choose(query.identities, labels, identities, images, np.random.default_rng(seed))
    if len(rows) < _MIN_POINTS:
        return None
    first = len(query.values)
    chosen = [query.values[rows[rows < first]], gallery.values[rows[rows >= first] - first]]
    values = np.concatenate([to_numpy(side) for side in chosen]).astype(np.float64)
    chosen_identities, cameras = labels[rows], np.concatenate([query.cameras, gallery.cameras])[rows]
    positions = _project(values, method, seed)
    return EmbeddingMap(
        method=method,
        positions=positions,
        identities=chosen_identities,
        cameras=cameras,
        from_query=rows < first,
        in_map=_same_identity(positions, chosen_identities, cameras),
        in_space=_same_identity(values, chosen_identities, cameras),
        chance=_chance(chosen_identities),
    )


def _choose(
    query_identities: np.ndarray, labels: np.ndarray, identities: int, images: int, random: np.random.Generator
) -> np.ndarray:
    """Rows of `labels` (query, then gallery), ascending."""
    present, counts = np.unique(labels, return_counts=True)
    candidates = present[(counts >= 2) & (present > DISTRACTOR) & np.isin(present, query_identities)]
    chosen = random.permutation(candidates)[:identities]
    rows = [random.permutation(np.flatnonzero(labels == identity))[:images] for identity in chosen]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


def _project(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    """(N, D) float64 -> (N, 2) float64."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if np.ptp(values, axis=0).max() == 0:  # all points are equal
        return np.zeros((len(values), 2))
    dimensions = min(2 if method == "pca" else REDUCED, *values.shape)
    reduced = PCA(dimensions, svd_solver="full").fit_transform(values)
    if reduced.shape[1] == 1:
        reduced = np.column_stack([reduced, np.zeros(len(reduced))])
    if method == "pca":
        return reduced
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced).astype(np.float64)


def _same_identity(points: np.ndarray, identities: np.ndarray, cameras: np.ndarray) -> SameIdentity:
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    same_camera = cameras[:, None] == cameras
    findable = ((identities[:, None] == identities) & ~same_camera).any(axis=1)
    any_camera = identities[distances.argmin(axis=1)] == identities
    distances[same_camera] = np.inf
    other_camera = identities[distances.argmin(axis=1)] == identities
    return SameIdentity(float(any_camera.mean()), float(other_camera[findable].mean()) if findable.any() else None)


def _chance(identities: np.ndarray) -> float:
    _, counts = np.unique(identities, return_counts=True)
    return float((counts * (counts - 1)).sum() / (len(identities) * (len(identities) - 1)))
