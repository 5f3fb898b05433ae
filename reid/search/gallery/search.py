"""Ranked results from an index, by exact search or by a FAISS index over it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking import normalize_rows
from reid.ranking.search import Neighbors
from reid.ranking.unit_search import top_k_unit_rows
from reid.search.gallery.crops import Crop
from reid.search.gallery.snapshot import Snapshot

# A nearest-neighbor search over `snapshot.active_rows`: (Q, D) float32, k -> indices into it and squared distances.
NeighborSearch = Callable[[np.ndarray, int], Neighbors]


@dataclass(frozen=True)
class SearchResult:
    """One retrieved image.

    Attributes:
        rank: Rank, from 1.
        distance: Euclidean distance between unit vectors, in [0, 2].
        path: Path relative to the indexed folder.
        identity: Identity, "" if unknown.
        camera: Camera, "" if unknown.
        time: Time as written in the name, "" if unknown.
        kind: "junk" or "distractor" if the identity is a label for that, see `Snapshot.kinds`; else "".
        id: Id of the image, shared by images of the same content.
    """

    rank: int
    distance: float
    path: str
    identity: str
    camera: str
    time: str
    kind: str = ""
    id: int = 0


def search_snapshot(
    snapshot: Snapshot,
    queries: np.ndarray,
    top_k: int,
    *,
    mask: np.ndarray | None = None,
    exclude: Sequence[Collection[bytes]] = (),
    neighbor_search: NeighborSearch | None = None,
) -> list[list[SearchResult]]:
    """Find the nearest images of every query.

    Args:
        snapshot: The state of the index.
        queries: (Q, D) float32 rows of unit length.
        top_k: Number of results per query, at least 1; fewer are returned if fewer images qualify.
        mask: (N,) bool, the images of the snapshot that may be returned; None for all.
        exclude: For each query, digests of contents to leave out, such as its own; empty for none.
        neighbor_search: An approximate search; None for exact search, which is also used if `mask` leaves out images.

    Returns:
        For each query its results by distance, ties by path.

    Raises:
        InputError: If `top_k` is below 1 or the dimensions differ.
    """
    check_query(queries, top_k, snapshot.dim)
    unfiltered = mask is None or bool(mask.all())
    candidates = snapshot.active_rows if unfiltered else np.unique(snapshot.rows[mask])
    max_excluded = max((len(digests) for digests in exclude), default=0)
    k = min(top_k + max_excluded, len(candidates))
    if not k:
        return [[] for _ in queries]
    if neighbor_search is not None and unfiltered:
        neighbors = neighbor_search(queries, k)
        rows = candidates[neighbors.indices]
    else:
        parts, codes = snapshot.coded_parts
        total = len(snapshot.checksums)
        allowed = None
        if len(candidates) < total:
            allowed = np.zeros(total, dtype=bool)
            allowed[candidates] = True
        neighbors = top_k_unit_rows(queries, parts, k, allowed=allowed, codes=codes, check=snapshot.check_rows)
        rows = neighbors.indices
    excluded = [set(digests) for digests in exclude] or [set[bytes]()] * len(queries)
    return [
        _to_results(snapshot, query_rows, np.sqrt(distances), None if unfiltered else mask, digests)[:top_k]
        for query_rows, distances, digests in zip(rows, neighbors.distances, excluded, strict=True)
    ]


def check_query(queries: np.ndarray, top_k: int, dim: int) -> None:
    """Check the queries of a search.

    Args:
        queries: (Q, D) rows.
        top_k: Number of results per query.
        dim: Feature dimension of the index.

    Raises:
        InputError: If `top_k` is below 1 or the dimensions differ.
    """
    if top_k < 1:
        raise InputError(f"--top {top_k}: the number of results must be at least 1")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise InputError(
            f"queries of shape {queries.shape} do not fit an index of dimension {dim}; was it built with a "
            "different model?"
        )


def mean_query(features: np.ndarray) -> np.ndarray:
    """Average several crops of one person to a single query.

    Args:
        features: (n, D) floating, one row per crop.

    Returns:
        (1, D) float32, the mean row scaled to unit length.
    """
    return normalize_rows(np.asarray(features, dtype=np.float64).mean(axis=0, keepdims=True))


def _to_results(
    snapshot: Snapshot, rows: np.ndarray, distances: np.ndarray, mask: np.ndarray | None, excluded: set[bytes]
) -> list[SearchResult]:
    images = [
        (float(distance), snapshot.crops[image], snapshot.row_id(row))
        for row, distance in zip(rows.tolist(), distances, strict=True)
        for image in snapshot.images_of_row(row).tolist()
        if (mask is None or mask[image]) and snapshot.digests[image] not in excluded
    ]
    return rank_results(images, snapshot.kinds)


def rank_results(images: list[tuple[float, Crop, int]], kinds: Mapping[str, str]) -> list[SearchResult]:
    """Order retrieved images.

    Args:
        images: Distance, crop and id of each.
        kinds: Meaning of identities, see `Snapshot.kinds`.

    Returns:
        The results by distance, ties by path.
    """
    images = sorted(images, key=lambda entry: (entry[0], entry[1].path))
    return [
        SearchResult(
            rank, distance, crop.path, **crop.labels._asdict(), kind=kinds.get(crop.labels.identity, ""), id=id
        )
        for rank, (distance, crop, id) in enumerate(images, start=1)
    ]
