"""The embedding of some identities drawn flat, and how much of its neighborhoods the drawing keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from reid.errors import InputError, unknown_name
from reid.records import DISTRACTOR, Features

METHODS = ("tsne", "pca")
REDUCED = 50  # dimensions that t-SNE is given, as its authors did
MAX_POINTS = 2000


@dataclass(frozen=True)
class SameIdentity:
    """Share in [0, 1] of the points whose nearest other point (Euclidean; the first of equal ones) has their identity.

    any_camera: the nearest of all. other_camera: the nearest by another camera, as retrieval asks; over the points that
    can find their identity so; None where there is no such point.
    """

    any_camera: float
    other_camera: float | None


@dataclass(frozen=True)
class EmbeddingMap:
    """N points of a plane.

    places: (N, 2) float64, without unit. identities, cameras: (N,) int64. from_query: (N,) bool, else from the gallery.
    in_map, in_space: the share of points whose neighbor is of their own identity, in the plane and in the space of the
    features. by_chance: that share where any other point is the neighbor with equal chance.
    """

    method: str
    places: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    from_query: np.ndarray
    in_map: SameIdentity
    in_space: SameIdentity
    by_chance: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; places to 5 digits, which no drawing shows."""
        labels = zip(self.identities.tolist(), self.cameras.tolist(), self.from_query.tolist(), strict=True)
        return {
            "method": self.method,
            "points": [
                {"x": float(f"{x:.5g}"), "y": float(f"{y:.5g}"), "identity": identity, "camera": camera, "query": query}
                for (x, y), (identity, camera, query) in zip(self.places.tolist(), labels, strict=True)
            ],
            "same_identity": {
                "map": dataclasses.asdict(self.in_map),
                "space": dataclasses.asdict(self.in_space),
                "chance": self.by_chance,
            },
        }


def check_map(method: str) -> None:
    """Raise InputError for an unknown method; asked before long work."""
    if method not in METHODS:
        raise unknown_name("map", method, (*METHODS, "none"))


def embedding_map(
    query: Features, gallery: Features, *, method: str = "pca", identities: int = 16, images: int = 20, seed: int = 0
) -> EmbeddingMap | None:
    """Map up to `images` images each of up to `identities` people, drawn by `seed` among those of the query.

    Only identities with two images or more in query and gallery together are drawn, junk and distractors never. The
    choice depends on the labels and the seed alone, so two checkpoints are mapped on the same images. method: `pca`,
    the two directions of greatest variance, or `tsne` (van der Maaten and Hinton 2008) with a perplexity of 30 or of a
    third of the points, after a PCA to 50 dimensions and begun from the first two of them.
    Returns None where fewer than 5 images can be drawn. Raises InputError for an unknown method and counts outside
    1 .. 2000 points.
    """
    check_map(method)
    if min(identities, images) < 1 or identities * images > MAX_POINTS:
        raise InputError(f"a map of {identities} identities with {images} images each: 1 to {MAX_POINTS} points fit in")
    labels = np.concatenate([query.identities, gallery.identities])
    rows = _choose(query.identities, labels, identities, images, np.random.default_rng(seed))
    if len(rows) < 5:
        return None
    first = len(query.values)
    chosen = [query.values[rows[rows < first]], gallery.values[rows[rows >= first] - first]]
    values = np.concatenate(chosen).astype(np.float64)
    people, cameras = labels[rows], np.concatenate([query.cameras, gallery.cameras])[rows]
    places = _flat(values, method, seed)
    return EmbeddingMap(
        method=method,
        places=places,
        identities=people,
        cameras=cameras,
        from_query=rows < first,
        in_map=_same_identity(places, people, cameras),
        in_space=_same_identity(values, people, cameras),
        by_chance=_by_chance(people),
    )


def _choose(
    asked: np.ndarray, labels: np.ndarray, identities: int, images: int, random: np.random.Generator
) -> np.ndarray:
    """Rows of `labels` (query, then gallery), ascending."""
    present, counts = np.unique(labels, return_counts=True)
    known = present[(counts >= 2) & (present > DISTRACTOR) & np.isin(present, asked)]
    people = random.permutation(known)[:identities]
    rows = [random.permutation(np.flatnonzero(labels == person))[:images] for person in people]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


def _flat(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    """(N, D) float64 -> (N, 2) float64."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if np.ptp(values, axis=0).max() == 0:  # all in one point: no direction to draw along
        return np.zeros((len(values), 2))
    dimensions = min(2 if method == "pca" else REDUCED, *values.shape)
    reduced = PCA(dimensions, svd_solver="full").fit_transform(values)
    if reduced.shape[1] == 1:
        reduced = np.column_stack([reduced, np.zeros(len(reduced))])
    if method == "pca":
        return reduced
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced).astype(np.float64)


def _same_identity(points: np.ndarray, people: np.ndarray, cameras: np.ndarray) -> SameIdentity:
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    own_camera = cameras[:, None] == cameras
    findable = ((people[:, None] == people) & ~own_camera).any(axis=1)
    any_camera = people[apart.argmin(axis=1)] == people
    apart[own_camera] = np.inf
    other_camera = people[apart.argmin(axis=1)] == people
    return SameIdentity(float(any_camera.mean()), float(other_camera[findable].mean()) if findable.any() else None)


def _by_chance(people: np.ndarray) -> float:
    _, counts = np.unique(people, return_counts=True)
    return float((counts * (counts - 1)).sum() / (len(people) * (len(people) - 1)))
