"""The protocol of revisited Oxford and Paris (Radenović et al. 2018): easy, medium and hard, with junk.

Each query has its own lists of easy, hard and junk gallery images. Easy asks for the easy ones and passes over hard and
junk, medium asks for easy and hard and passes over junk, hard asks for the hard ones and passes over easy and junk.
What is passed over costs no rank. AP is the trapezoid form; queries with nothing to find are left out of a setup's
means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.ranks import count_nearer
from reid.ranking.metrics import Ranking

# Setup -> (asked for, passed over).
SETUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
CUTS = (1, 5, 10)


@dataclass(frozen=True)
class RevisitedScores:
    """One setup. Fractions in [0, 1].

    mAP: mean of the trapezoid AP. precision: cut k -> mP@k. average_precision: (Q,) float64, NaN where nothing is to be
    found. queries, dropped_queries: with and without something to find.
    """

    mAP: float
    precision: dict[int, float]
    average_precision: np.ndarray
    queries: int
    dropped_queries: int

    def to_json(self) -> dict[str, Any]:
        """The means, without the APs of single queries."""
        precision = {f"mP@{k}": value for k, value in self.precision.items()}
        return {"mAP": self.mAP, **precision, "queries": self.queries, "dropped_queries": self.dropped_queries}


def evaluate_revisited(
    query: Any,
    gallery: Any,
    *,
    easy: Sequence[np.ndarray],
    hard: Sequence[np.ndarray],
    junk: Sequence[np.ndarray],
    metric: str = "cosine",
) -> dict[str, RevisitedScores]:
    """Scores of the setups "easy", "medium" and "hard".

    query: (Q, D), gallery: (G, D), floating; the gallery may be a memory map or shards, such as one with a million
    distractors behind the images of the ground truth. easy, hard, junk: Q arrays each, of gallery indices. Raises
    InputError for matrices that don't fit, lists of another number, indices outside the gallery or in two lists, and a
    setup in which no query has anything to find.
    """
    lists = {"easy": easy, "hard": hard, "junk": junk}
    for name, given in lists.items():
        if len(given) != len(query):
            raise InputError(f"{len(given)} lists of {name} images for {len(query)} queries")
    labels = [_labels({name: given[i] for name, given in lists.items()}, i, len(gallery)) for i in range(len(query))]
    places = [np.sort(np.concatenate(list(of_query.values()))) for of_query in labels]
    offsets = np.concatenate([[0], np.cumsum([len(listed) for listed in places])]).astype(np.int64)
    nearer = count_nearer(query, gallery, offsets, np.concatenate(places), leave_out=_nothing, metric=metric)
    listed = [
        _Listed(of_query, places[i], nearer.counts[offsets[i] : offsets[i + 1]]) for i, of_query in enumerate(labels)
    ]
    return {name: _scores(name, listed, len(gallery)) for name in SETUPS}


def precision_at(ranks: np.ndarray, cut: int) -> float:
    """Precision at `cut`, or at the last hit where that comes earlier, as the authors' code has it.

    ranks: (m,) int64, ascending, from 1, of all images to be found; m > 0.
    """
    end = min(int(ranks[-1]), cut)
    return int(np.searchsorted(ranks, end, side="right")) / end


def _labels(lists: dict[str, np.ndarray], query: int, gallery: int) -> dict[str, np.ndarray]:
    found = {name: np.asarray(given, dtype=np.int64).reshape(-1) for name, given in lists.items()}
    everything = np.concatenate(list(found.values()))
    if len(everything) and not 0 <= everything.min() <= everything.max() < gallery:
        outside = everything.max() if everything.max() >= gallery else everything.min()
        raise InputError(f"query {query} names the gallery image {outside}, but there are {gallery}, counted from 0")
    values, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"query {query} names the gallery image {values[counts > 1][0]} twice in its lists")
    return found


@dataclass(frozen=True)
class _Listed:
    """What a query lists: labels: list -> gallery indices. places: all of them, ascending. ahead: how many gallery
    images come before each of `places`, listed ones too.
    """

    labels: dict[str, np.ndarray]
    places: np.ndarray
    ahead: np.ndarray

    def ranks(self, asked: tuple[str, ...], passed: tuple[str, ...]) -> np.ndarray:
        """Ranks of the images asked for, from 1, ascending, those passed over left out."""
        order = np.argsort(self.ahead)
        gone, wanted = (
            np.isin(self.places[order], np.concatenate([self.labels[name] for name in names]))
            for names in (passed, asked)
        )
        return (1 + self.ahead[order] - np.cumsum(gone))[wanted]


def _nothing(*_: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def _scores(setup: str, listed: list[_Listed], gallery: int) -> RevisitedScores:
    ranks = [of_query.ranks(*SETUPS[setup]) for of_query in listed]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in ranks])]).astype(np.int64)
    if offsets[-1] == 0:
        raise InputError(f"none of the {len(ranks)} queries has an image to be found in the setup {setup!r}")
    ranking = Ranking(np.concatenate(ranks), offsets, gallery)
    precision = np.where(ranking.valid, ranking.average_precision_trapezoid, np.nan)
    cuts = {k: float(np.mean([precision_at(r, k) for r in ranks if len(r)])) for k in CUTS}
    valid = int(ranking.valid.sum())
    return RevisitedScores(float(np.nanmean(precision)), cuts, precision, valid, len(ranks) - valid)
