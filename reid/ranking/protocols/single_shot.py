"""The single-gallery-shot protocol of CUHK03's first split (Li et al. 2014): one gallery image per identity.

For each query, junk is removed from the gallery (images of the query's identity by its own camera, and those of
identity -1), one of the remaining images of each identity is sampled at random, and the rank of the one true match
among them is measured. Distractors (identity 0) belong to no identity and are all kept. Sampling is repeated, and every
measure is the mean over queries and repeats.

With a single true match at rank r, AP is 1 / r in the rectangle form. The mAP of this protocol is therefore the mean
reciprocal rank and is called that; it is not an mAP over all images of an identity, which some tools print next to this
CMC.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking.arrays import rows_of
from reid.ranking.exact.tiles import DistanceTile, check_matrices, distance_tiles, metric_pair_distances
from reid.ranking.protocols.market import GroundTruth, market_ground_truth
from reid.records import DISTRACTOR, Features

# Bytes of one number per gallery image, for the queries ranked at once.
_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SingleShotScores:
    """Means over queries and repeats, fractions in [0, 1].

    Attributes:
        rank1: Fraction of samples with the true match at rank 1.
        rank5: The same at rank 5 or before.
        rank10: The same at rank 10 or before.
        mean_reciprocal_rank: Mean of 1 / rank of the true match.
        spread: Standard deviation of rank-1 over the repeats.
        cmc: cmc[k-1] is the fraction of samples with the true match at rank k or before.
        repeats: Number of repeats.
        queries: Number of queries with a true match.
        dropped_queries: Number of queries without.
    """

    rank1: float
    rank5: float
    rank10: float
    mean_reciprocal_rank: float
    spread: float
    cmc: tuple[float, ...] = field(repr=False)
    repeats: int
    queries: int
    dropped_queries: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return everything but the CMC curve.

        Returns:
            The entry in `evaluation.json`.
        """
        return {name: value for name, value in vars(self).items() if name != "cmc"}


def evaluate_single_shot(
    query: Features,
    gallery: Features,
    *,
    metric: str = "euclidean",
    repeats: int = 100,
    seed: int = 0,
    max_rank: int = 50,
) -> SingleShotScores:
    """Compute CMC and mean reciprocal rank with one gallery image per identity, sampled for every query and repeat.

    The samples depend only on the seed and on the labels, so two models are compared on the same galleries. A query
    without a true match is skipped, with a warning.

    Args:
        query: Query features with identities and cameras.
        gallery: Gallery features with identities and cameras.
        metric: "euclidean" or "cosine".
        repeats: Number of samples per query.
        seed: Seed of the samples.
        max_rank: Length of the CMC curve.

    Returns:
        Averages over queries and repeats.

    Raises:
        InputError: If `reid.ranking.evaluate` raises it, or `repeats` is below 1.
    """
    if max_rank < 1:
        raise InputError(f"max_rank {max_rank}: the CMC curve requires at least 1")
    ranks = single_shot_ranks(query, gallery, metric=metric, repeats=repeats, seed=seed)
    dropped = len(query.identities) - len(ranks)
    if dropped:
        warnings.warn(
            f"{dropped} of {len(query.identities)} queries have no true match in the gallery: skipped", stacklevel=2
        )
    found = np.bincount(ranks[ranks <= max_rank], minlength=max_rank + 1)[1:]
    return SingleShotScores(
        rank1=float((ranks <= 1).mean()),
        rank5=float((ranks <= 5).mean()),
        rank10=float((ranks <= 10).mean()),
        mean_reciprocal_rank=float((1 / ranks).mean()),
        spread=float((ranks == 1).mean(axis=0).std()),
        cmc=tuple((np.cumsum(found) / ranks.size).tolist()),
        repeats=repeats,
        queries=len(ranks),
        dropped_queries=dropped,
    )


def single_shot_ranks(
    query: Features, gallery: Features, *, metric: str = "euclidean", repeats: int = 100, seed: int = 0
) -> np.ndarray:
    """Compute the rank of the sampled true match of each query that has one.

    Sampling uses one `numpy.random.default_rng(seed)` and the queries in order; for each,
    `integers(sizes, size=(repeats, P))`, where sizes are the numbers of remaining images of the P ascending
    identities; image i of an identity is its i-th by gallery index. Equal distances rank by gallery index.

    Args:
        query: Query features with identities and cameras.
        gallery: Gallery features with identities and cameras.
        metric: "euclidean" or "cosine".
        repeats: Number of samples per query.
        seed: Seed of the samples.

    Returns:
        (V, repeats) int64 ranks of the V queries with a true match, from 1.

    Raises:
        InputError: If `reid.ranking.evaluate` raises it, or `repeats` is below 1.
    """
    if repeats < 1:
        raise InputError(f"repeats {repeats}: must be at least 1")
    truth = market_ground_truth(query, gallery)
    check_matrices(query.values, gallery.values, metric)
    kept = np.flatnonzero(gallery.identities > DISTRACTOR)
    kept = kept[np.argsort(gallery.identities[kept], kind="stable")]
    distractors = gallery.identities == DISTRACTOR
    random = np.random.default_rng(seed)
    ranks = []
    for i, ahead, order in _matches_ahead(query, gallery, truth, metric):
        same_camera = truth.same_camera[i]
        images = kept[~np.isin(kept, same_camera)] if len(same_camera) else kept
        identities, starts, sizes = np.unique(gallery.identities[images], return_index=True, return_counts=True)
        sampled = random.integers(sizes, size=(repeats, len(sizes)))
        position = order[sampled[:, np.searchsorted(identities, query.identities[i])]]
        # The match itself has `position` matches ahead of it and is counted, which makes the number a rank.
        rank = (ahead[images[starts + sampled]] <= position[:, None]).sum(axis=1)
        wrong = np.cumsum(np.bincount(ahead[distractors], minlength=len(order) + 1))
        ranks.append(rank + wrong[position])
    return np.array(ranks, dtype=np.int64).reshape(-1, repeats)


def _matches_ahead(
    query: Features, gallery: Features, truth: GroundTruth, metric: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield query index, (G,) number of its matches before each gallery image, and (m,) positions of its matches."""
    valid = np.flatnonzero(truth.counts)
    step = max(1, _AHEAD_BYTES // (4 * len(gallery.identities)))
    for first in range(0, len(valid), step):
        some = valid[first : first + step]
        counts = truth.counts[some]
        columns = np.concatenate([truth.matches[i] for i in some])
        exact = metric_pair_distances(query.values, gallery.values, np.repeat(some, counts), columns, metric=metric)
        matches = [
            _Matches(distances, truth.matches[i])
            for i, distances in zip(some, np.split(exact, np.cumsum(counts)[:-1]), strict=True)
        ]
        ahead = np.empty((len(some), len(gallery.identities)), dtype=np.int32)
        for tile in distance_tiles(rows_of(query.values, some), gallery.values, metric=metric):
            span = slice(tile.first_gallery, tile.first_gallery + tile.distances.shape[1])
            for j in range(len(tile.distances)):
                ahead[tile.first_query + j, span] = matches[tile.first_query + j].ahead(tile, j)
        for i, row, own in zip(some.tolist(), ahead, matches, strict=True):
            yield i, row, own.order


class _Matches:
    """The true matches of one query; `order` (m,) int64 is the position of each among them, from 0."""

    def __init__(self, distances: np.ndarray, indices: np.ndarray) -> None:
        by_distance = np.lexsort((indices, distances))
        self._distances, self._indices = distances[by_distance], indices[by_distance]
        self.order = np.argsort(by_distance)

    def ahead(self, tile: DistanceTile, row: int) -> np.ndarray:
        """Return (g,) int64 numbers of matches before each image in a row of the tile."""
        distances, bound = tile.distances[row], tile.bound[row]
        count = np.searchsorted(self._distances, distances - bound, side="left")
        column = np.flatnonzero(count < np.searchsorted(self._distances, distances + bound, side="right"))
        if len(column):
            exact = tile.exact(np.full(len(column), row), column)[:, None]
            index = column[:, None] + tile.first_gallery
            before = (self._distances < exact) | ((self._distances == exact) & (self._indices < index))
            count[column] = before.sum(axis=1)
        return count
