"""Ranked answers out of an index: exact ones, or those of a FAISS index over it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking import normalize_rows
from reid.ranking.search import Neighbors
from reid.ranking.unit_search import nearest_of_units
from reid.search.gallery.snapshot import Snapshot

# A nearest-neighbor search over `snapshot.living()`: (Q, D) float32, k -> indices into it and squared distances.
Nearest = Callable[[np.ndarray, int], Neighbors]


@dataclass(frozen=True)
class Answer:
    """One found image. rank: from 1. distance: Euclidean between rows of length 1, 0 .. 2. path: below the folder."""

    rank: int
    distance: float
    path: str
    identity: str
    camera: str
    time: str


def find(
    snapshot: Snapshot,
    queries: np.ndarray,
    top: int,
    *,
    among: np.ndarray | None = None,
    without: Sequence[Collection[bytes]] = (),
    nearest: Nearest | None = None,
) -> list[list[Answer]]:
    """The `top` nearest images to every query, fewer where there are fewer; by distance and, where equal, by path.

    queries: (Q, D) float32 rows of length 1. among: (N,) bool, images of the snapshot that may be found. without: for
    each query, digests of contents that are left out, such as its own. nearest: an approximate search; exact without,
    and where `among` leaves anything out. Raises InputError for a `top` below 1 and widths that differ.
    """
    if top < 1:
        raise InputError(f"the first {top} answers were asked for: at least 1")
    if queries.ndim != 2 or queries.shape[1] != snapshot.dim:
        raise InputError(f"queries {queries.shape} for an index of {snapshot.dim} numbers a row: of another model?")
    everything = among is None or bool(among.all())
    living = snapshot.living() if everything else np.unique(snapshot.places[among])
    spare = max((len(contents) for contents in without), default=0)
    wanted = min(top + spare, len(living))
    if not wanted:
        return [[] for _ in queries]
    if nearest is not None and everything:
        found = nearest(queries, wanted)
        indices = living[found.indices]
    else:
        rows = sum(map(len, snapshot.parts))
        allowed = None
        if len(living) < rows:
            allowed = np.zeros(rows, dtype=bool)
            allowed[living] = True
        found = nearest_of_units(queries, snapshot.parts, wanted, allowed=allowed)
        indices = found.indices
    left_out = [set(contents) for contents in without] or [set[bytes]()] * len(queries)
    return [
        _answers(snapshot, row, np.sqrt(distances), None if everything else among, omitted)[:top]
        for row, distances, omitted in zip(indices, found.distances, left_out, strict=True)
    ]


def mean_query(rows: np.ndarray) -> np.ndarray:
    """Several crops of one person as one query: (n, D) -> (1, D) float32, the mean row, of length 1."""
    return normalize_rows(np.asarray(rows, dtype=np.float64).mean(axis=0, keepdims=True))


def _answers(
    snapshot: Snapshot, places: np.ndarray, distances: np.ndarray, among: np.ndarray | None, omitted: set[bytes]
) -> list[Answer]:
    found = [
        (float(distance), snapshot.crops[image])
        for place, distance in zip(places.tolist(), distances, strict=True)
        for image in snapshot.images_of(place).tolist()
        if (among is None or among[image]) and snapshot.digests[image] not in omitted
    ]
    found.sort(key=lambda entry: (entry[0], entry[1].path))
    return [
        Answer(rank, distance, crop.path, crop.labels.identity, crop.labels.camera, crop.labels.time)
        for rank, (distance, crop) in enumerate(found, start=1)
    ]
