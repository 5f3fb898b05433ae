"""The top results of every query, without junk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import Ranking, distance_blocks, matches_and_junk, rank_matches
from reid.ranking.arrays import on_host
from reid.ranking.exact.distances import squared_distances
from reid.records import Features

MAX_TOP = 50


@dataclass(frozen=True)
class RankedLists:
    """The top k results of Q queries.

    Attributes:
        gallery: (Q, k) int64 gallery rows by rank; -1 where the gallery without junk is shorter.
        distances: (Q, k) float64 Euclidean distances (not squared); NaN where the gallery is shorter.
        correct: (Q, k) bool, whether the result is a true match.
        ranking: Ranks of all true matches, not only those in the top k.
    """

    gallery: np.ndarray
    distances: np.ndarray
    correct: np.ndarray
    ranking: Ranking


def ranked_lists(query: Features, gallery: Features, *, top: int = 10) -> RankedLists:
    """Rank the gallery for every query by Euclidean distance, ties by gallery row.

    Matches and junk are those of `reid.ranking`. Float32 distances, computed for one block of queries at a time, select
    candidates; the candidates are ordered by the float64 distances that `rank_matches` uses.

    Args:
        query: Features with identities and cameras.
        gallery: Features with identities and cameras.
        top: Results per query, k.

    Returns:
        First results and rank of the first true match per query.

    Raises:
        InputError: If `top` is outside [1, 50], or `reid.ranking.rank_matches` rejects the features.
    """
    if not 1 <= top <= MAX_TOP:
        raise InputError(f"a ranked list shows 1 to {MAX_TOP} results, not {top}")
    ranking = rank_matches(query, gallery)
    query, gallery = on_host(query), on_host(gallery)
    shape = (len(query.values), top)
    rows, distances, correct = np.full(shape, -1, dtype=np.int64), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    slack, width = _rounding_error(query.values, gallery.values), query.values.shape[1]
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
            correct[i, : len(order)] = np.isin(near[order], matches)
    return RankedLists(rows, distances, correct, ranking)


def lowest_ap_first(lists: RankedLists, count: int) -> np.ndarray:
    """Find the queries with the lowest AP.

    Args:
        lists: Result of `ranked_lists`.
        count: Maximum number of queries.

    Returns:
        (min(count, valid queries),) int64 query rows, lowest AP first, ties by row. Queries without a true match have
        no AP and are omitted.
    """
    valid = np.flatnonzero(lists.ranking.valid)
    return valid[np.argsort(lists.ranking.average_precision[valid], kind="stable")[: max(count, 0)]]


def result_entries(lists: RankedLists, gallery: Features, query: int) -> list[dict[str, Any]]:
    """Describe the results of one query as plain values.

    Args:
        lists: Result of `ranked_lists`.
        gallery: The gallery that was ranked.
        query: Row of the query.

    Returns:
        Entries with "rank" (from 1), "path", "identity", "camera", "distance" and "right".
    """
    rows = lists.gallery[query]
    return [
        {
            "rank": rank,
            "path": gallery.paths[row] if gallery.paths else "",
            "identity": int(gallery.identities[row]),
            "camera": int(gallery.cameras[row]),
            "distance": float(lists.distances[query, rank - 1]),
            "right": bool(lists.correct[query, rank - 1]),
        }
        for rank, row in enumerate(rows[rows >= 0].tolist(), start=1)
    ]


def _rounding_error(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q,) float64 bound on the error of the difference of two float32 squared distances of a query.

    Each is a sum of D products and two squared norms, so its error is below D + 4 roundings of |q|^2 + |g|^2.
    """
    squared_norms = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (query, gallery)]
    roundings = 2 * (query.shape[1] + 4) * np.finfo(np.float32).eps
    return roundings * (squared_norms[0] + squared_norms[1].max())


def _nearest(row: np.ndarray, count: int, slack: float) -> np.ndarray:
    """The indices, ascending, of the values (G,) within `slack` of the `count`-th smallest."""
    if count < 1:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(row <= np.partition(row, count - 1)[count - 1] + slack)
