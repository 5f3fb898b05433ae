"""The single-gallery-shot protocol of CUHK03's first split (Li et al. 2014): one gallery image of each identity.

For each query the gallery loses its junk (images of the query's identity by its own camera, and those of identity -1);
of what is left, one image of each identity is drawn at random, and the rank of the one true match among them is what
counts. Distractors (identity 0) are nobody's images and are all kept. The draw is repeated, and every measure is the
mean over queries and repeats.

With a single true match at rank r, AP is 1 / r, in the rectangle form. So the mAP of this protocol is the mean
reciprocal rank, and goes by that name; it is no mAP over all images of a person, which some tools print beside this
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
from reid.ranking.exact.tiles import Tile, check_matrices, pair_distances, tiles
from reid.ranking.protocols.market import Protocol, divide
from reid.records import DISTRACTOR, Features

# Bytes of one number an image kept for the queries ranked at once.
_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SingleShotScores:
    """Means over queries and repeats, fractions in [0, 1].

    mean_reciprocal_rank: mean of 1 / rank of the true match. spread: standard deviation of rank-1 over the repeats.
    cmc[k-1]: share of draws with the true match at rank k or before.
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
        """Everything but the CMC curve."""
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
    """CMC and mean reciprocal rank with one gallery image an identity, drawn anew for every query and repeat.

    The draws depend on the seed and on the labels alone, so two models are compared on the same galleries. Errors are
    those of `evaluate`; a query without a true match is left out, with a warning.
    """
    if max_rank < 1:
        raise InputError(f"the CMC curve needs max_rank >= 1, not {max_rank}")
    ranks = single_shot_ranks(query, gallery, metric=metric, repeats=repeats, seed=seed)
    dropped = len(query.identities) - len(ranks)
    if dropped:
        warnings.warn(
            f"{dropped} of {len(query.identities)} queries have no true match in the gallery: left out", stacklevel=2
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
    """(V, repeats) int64: the rank of the drawn true match of each of the V queries that have one, from 1.

    The draw: one `numpy.random.default_rng(seed)`, queries in order; for each, `integers(sizes, size=(repeats, P))`,
    where sizes are the numbers of images left of the P identities, ascending; image i of an identity is its i-th by
    gallery index. Equal distances rank by gallery index.
    """
    if repeats < 1:
        raise InputError(f"the protocol needs repeats >= 1, not {repeats}")
    protocol = divide(query, gallery)
    check_matrices(query.values, gallery.values, metric)
    kept = np.flatnonzero(gallery.identities > DISTRACTOR)
    kept = kept[np.argsort(gallery.identities[kept], kind="stable")]
    distractors = gallery.identities == DISTRACTOR
    random = np.random.default_rng(seed)
    ranks = []
    for i, ahead, order in _matches_ahead(query, gallery, protocol, metric):
        same_camera = protocol.same_camera[i]
        images = kept[~np.isin(kept, same_camera)] if len(same_camera) else kept
        people, starts, sizes = np.unique(gallery.identities[images], return_index=True, return_counts=True)
        drawn = random.integers(sizes, size=(repeats, len(sizes)))
        place = order[drawn[:, np.searchsorted(people, query.identities[i])]]
        # The match itself has `place` matches ahead of it and is counted, which makes the number a rank.
        shown = (ahead[images[starts + drawn]] <= place[:, None]).sum(axis=1)
        wrong = np.cumsum(np.bincount(ahead[distractors], minlength=len(order) + 1))
        ranks.append(shown + wrong[place])
    return np.array(ranks, dtype=np.int64).reshape(-1, repeats)


def _matches_ahead(
    query: Features, gallery: Features, protocol: Protocol, metric: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each query with true matches: (its index, (G,) how many of them come before each gallery image, (m,) their
    places among themselves, from 0), by exact distance and then by gallery index.
    """
    valid = np.flatnonzero(protocol.counts)
    room = max(1, _AHEAD_BYTES // (4 * len(gallery.identities)))
    for first in range(0, len(valid), room):
        some = valid[first : first + room]
        counts = protocol.counts[some]
        columns = np.concatenate([protocol.matches[i] for i in some])
        exact = pair_distances(query.values, gallery.values, np.repeat(some, counts), columns, metric=metric)
        targets = [
            _Targets(distances, protocol.matches[i])
            for i, distances in zip(some, np.split(exact, np.cumsum(counts)[:-1]), strict=True)
        ]
        ahead = np.empty((len(some), len(gallery.identities)), dtype=np.int32)
        for tile in tiles(rows_of(query.values, some), gallery.values, metric=metric):
            span = slice(tile.first_gallery, tile.first_gallery + tile.distances.shape[1])
            for j in range(len(tile.distances)):
                ahead[tile.first_query + j, span] = targets[tile.first_query + j].ahead(tile, j)
        for i, row, target in zip(some.tolist(), ahead, targets, strict=True):
            yield i, row, target.order


class _Targets:
    """The true matches of one query. order: (m,) int64, the place of each among them, from 0."""

    def __init__(self, distances: np.ndarray, places: np.ndarray) -> None:
        by_distance = np.lexsort((places, distances))
        self._distances, self._places = distances[by_distance], places[by_distance]
        self.order = np.argsort(by_distance)

    def ahead(self, tile: Tile, row: int) -> np.ndarray:
        """(g,) int64: how many come before each image of a row of the tile."""
        distances, bound = tile.distances[row], tile.bound[row]
        count = np.searchsorted(self._distances, distances - bound, side="left")
        column = np.flatnonzero(count < np.searchsorted(self._distances, distances + bound, side="right"))
        if len(column):
            exact = tile.exact(np.full(len(column), row), column)[:, None]
            index = column[:, None] + tile.first_gallery
            before = (self._distances < exact) | ((self._distances == exact) & (self._places < index))
            count[column] = before.sum(axis=1)
        return count
