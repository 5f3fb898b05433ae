"""Pairs of images to calibrate on: all matches, the nearest negatives, and a random sample of negatives.

A match is a pair of images of one identity, a negative a pair of two identities. Pairs follow the retrieval protocol,
as in `reid.ranking.protocols.verification`: every query with every gallery image that is not junk for it. Distances are
Euclidean between L2-normalized rows, in [0, 2].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.tiles import check_matrices, distance_tiles, metric_pair_distances
from reid.ranking.protocols.market import market_ground_truth
from reid.records import DISTRACTOR, JUNK, Features

# Up to this many negatives are all kept. Of more, the nearest are kept: this multiple of the largest rate.
MAX_KEPT_WHOLE = 1_000_000
_MARGIN = 2.0
_SAMPLE_SIZE = 200_000
_MIN_CELL_SAMPLE = 500


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a gallery image.

    Images are grouped in U units, which a bootstrap draws as a whole: an identity, or a single distractor, whose
    identity is unknown. A cell is an unordered pair of cameras: first * C + second with first <= second, where first
    and second index the C `cameras`.

    Attributes:
        cameras: (C,) int64 camera ids, ascending.
        match_distances: (M,) float64 distances of all matches, ascending.
        match_units: (M,) int64 units of the matches.
        match_cells: (M,) int64 cells of the matches.
        near_distances: (N,) float64 distances of the negatives up to the limit of their cell, ascending.
        near_queries: (N,) units of their query images.
        near_galleries: (N,) units of their gallery images.
        near_cells: (N,) int64 cells.
        far_distances: (F,) float64 distances of randomly drawn negatives, in the order drawn.
        far_queries: (F,) units of their query images.
        far_galleries: (F,) units of their gallery images.
        limits: (C * C,) float64 limit of each cell; infinite if all negatives are kept.
        query_counts: (C, U) float64 number of query images by camera and unit.
        gallery_counts: (C, U) float64 number of gallery images by camera and unit.
        identities: Number of identities, distractors aside.
    """

    cameras: np.ndarray
    match_distances: np.ndarray
    match_units: np.ndarray
    match_cells: np.ndarray
    near_distances: np.ndarray
    near_queries: np.ndarray
    near_galleries: np.ndarray
    near_cells: np.ndarray
    far_distances: np.ndarray
    far_queries: np.ndarray
    far_galleries: np.ndarray
    limits: np.ndarray
    query_counts: np.ndarray
    gallery_counts: np.ndarray
    identities: int

    @property
    def num_units(self) -> int:
        """Number of units."""
        return self.query_counts.shape[1]

    def num_negatives(self, weights: np.ndarray | None = None, cell: int | None = None) -> float:
        """Count the negatives, each weighted by the product of the weights of its two units.

        Args:
            weights: (U,) float64 weights of the units; None for 1 each.
            cell: Count only pairs of this cell.

        Returns:
            The (weighted) number of pairs.
        """
        query, gallery = self.query_counts, self.gallery_counts
        if cell is None:
            counts = [(query.sum(axis=0), gallery.sum(axis=0))]
        else:
            first, second = divmod(cell, len(self.cameras))
            directions = {(first, second), (second, first)}
            counts = [(query[a], gallery[b]) for a, b in directions]
        w = np.ones(self.num_units) if weights is None else weights
        return float(sum((w @ a) * (w @ b) - (w * a) @ (w * b) for a, b in counts))


@dataclass(frozen=True)
class _Images:
    """Both sides of the pairs: features, units (-1 for junk) and camera indices."""

    query: Features
    gallery: Features
    cameras: np.ndarray
    query_units: np.ndarray
    gallery_units: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray

    @classmethod
    def of(cls, query: Features, gallery: Features) -> _Images:
        cameras = np.unique(np.concatenate([query.cameras, gallery.cameras[gallery.identities != JUNK]]))
        query_cameras = np.searchsorted(cameras, query.cameras)
        gallery_cameras = np.minimum(np.searchsorted(cameras, gallery.cameras), len(cameras) - 1)
        return cls(query, gallery, cameras, *_units(query, gallery), query_cameras, gallery_cameras)

    def cells(self, query_cameras: np.ndarray, gallery_cameras: np.ndarray) -> np.ndarray:
        low, high = np.minimum(query_cameras, gallery_cameras), np.maximum(query_cameras, gallery_cameras)
        return low * len(self.cameras) + high

    def pair_cells(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.cells(self.query_cameras[rows], self.gallery_cameras[columns])

    def distances(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.sqrt(metric_pair_distances(self.query.values, self.gallery.values, rows, columns, metric="cosine"))

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(C, U) float64 images by camera and unit, of both sides."""
        num_units = int(max(self.query_units.max(), self.gallery_units.max())) + 1
        shape = (len(self.cameras), num_units)
        return _count(self.query_cameras, self.query_units, shape), _count(
            self.gallery_cameras, self.gallery_units, shape
        )


def collect_pairs(query: Features, gallery: Features, *, largest_rate: float, seed: int = 0) -> Pairs:
    """Collect the pairs of labeled features, with enough negatives for thresholds up to a false-match rate.

    Args:
        query: Features with identities and cameras.
        gallery: Features with identities and cameras.
        largest_rate: Largest false-match rate for which a threshold will be computed.
        seed: Seed of the random sample of negatives.

    Returns:
        Distances of matches and of sampled negatives.

    Raises:
        InputError: If there is no match or no negative.
    """
    protocol = market_ground_truth(query, gallery)
    check_matrices(query.values, gallery.values, "cosine")
    images = _Images.of(query, gallery)
    query_counts, gallery_counts = images.counts()
    identities = np.unique(np.concatenate([query.identities, gallery.identities]))

    rows, columns = np.repeat(np.arange(len(images.query_units)), protocol.counts), np.concatenate(protocol.matches)
    match_distances = images.distances(rows, columns)
    order = np.argsort(match_distances, kind="stable")
    match_units, match_cells = images.query_units[rows][order], images.pair_cells(rows, columns)[order]

    rows, columns = _sample_negatives(images, seed)
    far_distances = images.distances(rows, columns)
    total = float(query_counts.sum() * gallery_counts.sum() - (query_counts.sum(0) * gallery_counts.sum(0)).sum())
    if total <= 0:
        raise InputError(
            f"all {len(match_distances):,} pairs are of one identity: a threshold needs images of different "
            "identities in the query and the gallery"
        )
    limits = np.full(len(images.cameras) ** 2, np.inf)
    if total > MAX_KEPT_WHOLE:
        limits = _limits(far_distances, images.pair_cells(rows, columns), len(limits), largest_rate)
    near_distances, near_queries, near_galleries, near_cells = _near_negatives(images, limits)
    return Pairs(
        cameras=images.cameras,
        match_distances=match_distances[order],
        match_units=match_units,
        match_cells=match_cells,
        near_distances=near_distances,
        near_queries=near_queries,
        near_galleries=near_galleries,
        near_cells=near_cells,
        far_distances=far_distances,
        far_queries=images.query_units[rows],
        far_galleries=images.gallery_units[columns],
        limits=limits,
        query_counts=query_counts,
        gallery_counts=gallery_counts,
        identities=int((identities > DISTRACTOR).sum()),
    )


def _sample_negatives(images: _Images, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Query rows and gallery rows of random negatives, (F,) int64 each."""
    random = np.random.default_rng(seed)
    rows = random.integers(len(images.query_units), size=_SAMPLE_SIZE)
    columns = random.integers(len(images.gallery_units), size=_SAMPLE_SIZE)
    units = images.gallery_units[columns]
    negative = (units >= 0) & (images.query_units[rows] != units)
    return rows[negative], columns[negative]


def _near_negatives(images: _Images, limits: np.ndarray) -> list[np.ndarray]:
    """Distances, query units, gallery units and cells of the negatives within `limits`, ascending by distance."""
    found: list[tuple[np.ndarray, ...]] = []
    for tile in distance_tiles(images.query.values, images.gallery.values, metric="cosine", title="pairs"):
        rows, columns = (
            slice(first, first + size)
            for first, size in zip((tile.first_query, tile.first_gallery), tile.distances.shape, strict=True)
        )
        query_units, gallery_units = images.query_units[rows, None], images.gallery_units[None, columns]
        cells = images.cells(images.query_cameras[rows, None], images.gallery_cameras[None, columns])
        within = tile.distances <= limits[cells] ** 2
        within &= (query_units != gallery_units) & (gallery_units >= 0)
        row, column = np.nonzero(within)
        distances = np.sqrt(tile.exact(row, column))
        row, column = row + tile.first_query, column + tile.first_gallery
        units = images.query_units[row].astype(np.int32), images.gallery_units[column].astype(np.int32)
        found.append((distances, *units, images.pair_cells(row, column)))
    near = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    order = np.argsort(near[0], kind="stable")
    return [part[order] for part in near]


def _units(query: Features, gallery: Features) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each image of both sides, counted from 0; -1 for junk."""
    identities = np.unique(np.concatenate([query.identities, gallery.identities[gallery.identities > DISTRACTOR]]))
    units = np.full(len(gallery.identities), -1, dtype=np.int64)
    known = gallery.identities > DISTRACTOR
    units[known] = np.searchsorted(identities, gallery.identities[known])
    distractors = np.flatnonzero(gallery.identities == DISTRACTOR)
    units[distractors] = len(identities) + np.arange(len(distractors))
    return np.searchsorted(identities, query.identities), units


def _count(cameras: np.ndarray, units: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    kept = units >= 0
    flat = np.bincount(cameras[kept] * shape[1] + units[kept], minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.float64)


def _limits(sample: np.ndarray, cells: np.ndarray, size: int, largest_rate: float) -> np.ndarray:
    """Distances below which each cell, and all cells together, hold more pairs than the largest rate needs."""

    def limit(values: np.ndarray) -> float:
        share = _MARGIN * largest_rate + 5 * (_MARGIN * largest_rate / len(values)) ** 0.5
        return float(np.quantile(values, share)) if share < 0.5 else np.inf

    overall = limit(sample)
    limits = np.full(size, overall)
    for cell in np.unique(cells).tolist():
        own = sample[cells == cell]
        if len(own) > _MIN_CELL_SAMPLE:
            limits[cell] = max(overall, limit(own))
    return limits
