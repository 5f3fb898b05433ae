"""The first answers to every query, junk left out: who was found, who was taken for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import Ranking, distance_blocks, matches_and_junk, rank_matches
from reid.ranking.exact.distances import squared_distances
from reid.records import Features

MAX_TOP = 50


@dataclass(frozen=True)
class RankedLists:
    """The first k answers to each of Q queries, and where all of its true matches stand.

    gallery: (Q, k) int64, gallery row of the answer at rank 1, 2, ...; -1 where the gallery without junk is shorter.
    distances: (Q, k) float64, Euclidean (not squared), NaN there. right: (Q, k) bool, whether it is a true match.
    ranking: the ranks of all true matches, not only of those among the first k.
    """

    gallery: np.ndarray
    distances: np.ndarray
    right: np.ndarray
    ranking: Ranking


def ranked_lists(query: Features, gallery: Features, *, top: int = 10) -> RankedLists:
    """Rank the gallery for every query by Euclidean distance, equal ones by gallery row, and keep the first `top`.

    Matches and junk are those of `reid.ranking`. Float32 distances, held for one block of queries at a time, name the
    answers that may be among the first; the float64 distances that `rank_matches` goes by put these in order.
    Raises InputError for `top` outside 1 .. 50 and where `reid.ranking.rank_matches` does.
    """
    if not 1 <= top <= MAX_TOP:
        raise InputError(f"a ranked list shows 1 to {MAX_TOP} answers, not {top}")
    ranking = rank_matches(query, gallery)
    shape = (len(query.values), top)
    rows, distances, right = np.full(shape, -1, dtype=np.int64), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    slack, width = _rounding(query.values, gallery.values), query.values.shape[1]
    for start, block in distance_blocks(query.values, gallery.values):
        for i, row in enumerate(block, start):
            labels = int(query.identities[i]), int(query.cameras[i])
            matches, junk = matches_and_junk(*labels, gallery.identities, gallery.cameras)
            row[junk] = np.inf
            near = _nearest(row, min(top, len(row) - len(junk)), slack[i])
            squared = squared_distances(np.broadcast_to(query.values[i], (len(near), width)), gallery.values[near])
            order = np.argsort(squared, kind="stable")[:top]
            rows[i, : len(order)] = near[order]
            distances[i, : len(order)] = np.sqrt(squared[order])
            right[i, : len(order)] = np.isin(near[order], matches)
    return RankedLists(rows, distances, right, ranking)


def worst_first(lists: RankedLists, count: int) -> np.ndarray:
    """(min(count, valid queries),) int64: the queries of the lowest AP, ascending, equal ones by query row.

    Queries without a true match have no AP and are left out.
    """
    valid = np.flatnonzero(lists.ranking.valid)
    return valid[np.argsort(lists.ranking.average_precision[valid], kind="stable")[: max(count, 0)]]


def answers(lists: RankedLists, gallery: Features, query: int) -> list[dict[str, Any]]:
    """The list of one query as plain values: rank (from 1), path, identity, camera, distance and right of each."""
    row = lists.gallery[query]
    return [
        {
            "rank": rank,
            "path": gallery.paths[place] if gallery.paths else "",
            "identity": int(gallery.identities[place]),
            "camera": int(gallery.cameras[place]),
            "distance": float(lists.distances[query, rank - 1]),
            "right": bool(lists.right[query, rank - 1]),
        }
        for rank, place in enumerate(row[row >= 0].tolist(), start=1)
    ]


def _rounding(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q,) float64: how far two float32 squared distances of a query may be from their exact difference.

    Each is a sum of D products and two squared norms, so its error stays below D + 4 roundings of |q|^2 + |g|^2.
    """
    lengths = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (query, gallery)]
    roundings = 2 * (query.shape[1] + 4) * np.finfo(np.float32).eps
    return roundings * (lengths[0] + lengths[1].max())


def _nearest(row: np.ndarray, count: int, slack: float) -> np.ndarray:
    """The places whose values come within `slack` of the `count`-th smallest of a row (G,), ascending by place."""
    if count < 1:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(row <= np.partition(row, count - 1)[count - 1] + slack)
