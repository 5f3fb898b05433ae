"""Pairs to calibrate on: all of one person, the nearest of different people, and a random sample of the others.

Pairs are those of the retrieval protocol, as in `reid.ranking.protocols.verification`: every query with every gallery image that
is not junk for it. Rows are divided by their length, distances Euclidean, 0 .. 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.tiles import check_matrices, pair_distances, tiles
from reid.ranking.protocols.market import divide
from reid.records import DISTRACTOR, JUNK, Features

# With no more pairs than this, all are kept; with more, this share of the nearest, in multiples of the largest rate.
KEPT_WHOLE = 1_000_000
_MARGIN = 2.0
_SAMPLE = 200_000


@dataclass(frozen=True)
class Pairs:
    """Pairs of (query, gallery) images, each ascending by distance.

    A unit is what is drawn as a whole in a bootstrap: an identity, or one distractor, who is nobody else as far as
    anybody knows. A cell is a pair of cameras, either way round: first * C + second, first <= second, of C `cameras`.

    match_*: of all pairs of one person: distances (M,) float64, units (M,), cells (M,) int64. near_*: of those pairs of
    different people that are nearer than `limits[cell]` (C * C,), with the units of both. far_*: of random pairs of
    different people. query_counts, gallery_counts: (C, U) images by camera and unit.
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
    def units(self) -> int:
        """How many can be drawn."""
        return self.query_counts.shape[1]

    def others(self, weights: np.ndarray | None = None, cell: int | None = None) -> float:
        """Number of pairs of different units, each counted as often as the product of their weights (U,) says."""
        asked, given = self.query_counts, self.gallery_counts
        if cell is None:
            sides = [(asked.sum(axis=0), given.sum(axis=0))]
        else:
            first, second = divmod(cell, len(self.cameras))
            ways = {(first, second), (second, first)}
            sides = [(asked[a], given[b]) for a, b in ways]
        w = np.ones(self.units) if weights is None else weights
        return float(sum((w @ a) * (w @ b) - (w * a) @ (w * b) for a, b in sides))


def collect(query: Features, gallery: Features, *, largest_rate: float, seed: int = 0) -> Pairs:
    """The pairs of labeled features, with enough near ones for thresholds up to `largest_rate`.

    Raises InputError as `reid.ranking.verify` does: no pair of one person, or none of different people.
    """
    protocol = divide(query, gallery)
    check_matrices(query.values, gallery.values, "cosine")
    cameras = np.unique(np.concatenate([query.cameras, gallery.cameras[gallery.identities != JUNK]]))
    asked, given = _units(query, gallery)
    people = np.unique(np.concatenate([query.identities, gallery.identities]))
    identities, units = int((people > DISTRACTOR).sum()), int(max(asked.max(), given.max())) + 1
    query_cameras = np.searchsorted(cameras, query.cameras)
    gallery_cameras = np.minimum(np.searchsorted(cameras, gallery.cameras), len(cameras) - 1)
    query_counts, gallery_counts = (
        _counts(camera[unit >= 0], unit[unit >= 0], len(cameras), units)
        for camera, unit in ((query_cameras, asked), (gallery_cameras, given))
    )

    def cells(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        a, b = query_cameras[rows], gallery_cameras[columns]
        return np.minimum(a, b) * len(cameras) + np.maximum(a, b)

    def distances(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.sqrt(pair_distances(query.values, gallery.values, rows, columns, metric="cosine"))

    rows, columns = np.repeat(np.arange(len(asked)), protocol.counts), np.concatenate(protocol.matches)
    match = distances(rows, columns)
    order = np.argsort(match, kind="stable")
    matches = match[order], asked[rows][order], cells(rows, columns)[order]

    drawn = np.random.default_rng(seed)
    rows, columns = drawn.integers(len(asked), size=_SAMPLE), drawn.integers(len(given), size=_SAMPLE)
    differ = (given[columns] >= 0) & (asked[rows] != given[columns])
    rows, columns = rows[differ], columns[differ]
    far = distances(rows, columns)
    total = float(query_counts.sum() * gallery_counts.sum() - (query_counts.sum(0) * gallery_counts.sum(0)).sum())
    if total <= 0:
        raise InputError(
            f"all {len(match):,} pairs are of one person: a threshold needs images of different people on both sides"
        )
    limits = np.full(len(cameras) ** 2, np.inf)
    if total > KEPT_WHOLE:
        limits = _limits(far, cells(rows, columns), len(limits), largest_rate)
    found: list[tuple[np.ndarray, ...]] = []
    for tile in tiles(query.values, gallery.values, metric="cosine", title="pairs"):
        some, other = (
            slice(first, first + size)
            for first, size in zip((tile.first_query, tile.first_gallery), tile.distances.shape, strict=True)
        )
        a, b = query_cameras[some, None], gallery_cameras[None, other]
        within = tile.distances <= limits[np.minimum(a, b) * len(cameras) + np.maximum(a, b)] ** 2
        within &= (asked[some, None] != given[None, other]) & (given[None, other] >= 0)
        row, column = np.nonzero(within)
        exact = np.sqrt(tile.exact(row, column))
        row, column = row + tile.first_query, column + tile.first_gallery
        found.append((exact, asked[row].astype(np.int32), given[column].astype(np.int32), cells(row, column)))
    near = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    order = np.argsort(near[0], kind="stable")
    return Pairs(
        cameras=cameras,
        match_distances=matches[0],
        match_units=matches[1],
        match_cells=matches[2],
        near_distances=near[0][order],
        near_queries=near[1][order],
        near_galleries=near[2][order],
        near_cells=near[3][order],
        far_distances=far,
        far_queries=asked[rows],
        far_galleries=given[columns],
        limits=limits,
        query_counts=query_counts,
        gallery_counts=gallery_counts,
        identities=identities,
    )


def _units(query: Features, gallery: Features) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each image of both sides, counted from 0; -1 for junk."""
    people = np.unique(np.concatenate([query.identities, gallery.identities[gallery.identities > DISTRACTOR]]))
    given = np.full(len(gallery.identities), -1, dtype=np.int64)
    known = gallery.identities > DISTRACTOR
    given[known] = np.searchsorted(people, gallery.identities[known])
    nobody = np.flatnonzero(gallery.identities == DISTRACTOR)
    given[nobody] = len(people) + np.arange(len(nobody))
    return np.searchsorted(people, query.identities), given


def _counts(cameras: np.ndarray, units: np.ndarray, height: int, width: int) -> np.ndarray:
    flat = np.bincount(cameras * width + units, minlength=height * width)
    return flat.reshape(height, width).astype(np.float64)


def _limits(sample: np.ndarray, cells: np.ndarray, size: int, largest_rate: float) -> np.ndarray:
    """Distances below which lie, in every cell and over all, surely more pairs than the largest rate needs."""

    def limit(values: np.ndarray) -> float:
        share = _MARGIN * largest_rate + 5 * (_MARGIN * largest_rate / len(values)) ** 0.5
        return float(np.quantile(values, share)) if share < 0.5 else np.inf

    overall = limit(sample)
    found = np.full(size, overall)
    for cell in np.unique(cells).tolist():
        # Too few for a threshold of its own are too few for a limit of their own.
        own = sample[cells == cell]
        if len(own) > 500:
            found[cell] = max(overall, limit(own))
    return found
