"""The protocol of revisited Oxford and Paris (Radenović et al. 2018): easy, medium and hard, with junk.

Each query has its own lists of easy, hard and junk gallery images. The easy setup searches easy images and ignores hard
and junk ones, medium searches easy and hard and ignores junk, hard searches hard and ignores easy and junk. Ignored
images cost no rank. AP is the trapezoid form; queries without images to find are excluded from the means of a setup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.options import ComparisonOptions
from reid.ranking.exact.ranks import count_nearer
from reid.ranking.metrics import Ranking

# Setup -> (lists to find, lists to ignore).
SETUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
CUTS = (1, 5, 10)


@dataclass(frozen=True)
class RevisitedScores:
    """Scores of one setup, fractions in [0, 1].

    Attributes:
        mAP: Mean of the trapezoid AP.
        precision: Cutoff k -> mP@k.
        average_precision: (Q,) float64, NaN for queries without images to find.
        queries: Number of queries with images to find.
        dropped_queries: Number of queries without.
    """

    mAP: float
    precision: dict[int, float]
    average_precision: np.ndarray
    queries: int
    dropped_queries: int

    def to_json(self) -> dict[str, Any]:
        """Return the means, without the AP of each query.

        Returns:
            The entry of the setup in `evaluation.json`.
        """
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
    """Evaluate the setups "easy", "medium" and "hard".

    Args:
        query: (Q, D) floating.
        gallery: (G, D) floating; a memory map or shards too, such as with a million distractors after the images of the
            ground truth.
        easy: Q arrays of gallery indices.
        hard: Q arrays of gallery indices.
        junk: Q arrays of gallery indices.
        metric: "euclidean" or "cosine".

    Returns:
        The scores of each setup.

    Raises:
        InputError: If matrices do not fit, the number of lists is wrong, indices are outside the gallery or in two
            lists, or in a setup no query has an image to find.
    """
    lists = {"easy": easy, "hard": hard, "junk": junk}
    for name, given in lists.items():
        if len(given) != len(query):
            raise InputError(f"{len(given)} lists of {name} images for {len(query)} queries")
    labels = [_labels({name: given[i] for name, given in lists.items()}, i, len(gallery)) for i in range(len(query))]
    indices = [np.sort(np.concatenate(list(of_query.values()))) for of_query in labels]
    offsets = np.concatenate([[0], np.cumsum([len(listed) for listed in indices])]).astype(np.int64)
    nearer = count_nearer(
        query, gallery, offsets, np.concatenate(indices), excluded=_no_pairs, options=ComparisonOptions(metric)
    )
    listed = [
        _ListedImages(of_query, indices[i], nearer.counts[offsets[i] : offsets[i + 1]])
        for i, of_query in enumerate(labels)
    ]
    return {name: _scores(name, listed, len(gallery)) for name in SETUPS}


def precision_at(ranks: np.ndarray, cut: int) -> float:
    """Compute the precision at a cutoff, or at the last hit if that comes earlier, as in the authors' code.

    Args:
        ranks: (m,) int64 ranks of all images to find, ascending, from 1; m > 0.
        cut: Number of first results that are considered, at least 1.

    Returns:
        Fraction in [0, 1].
    """
    end = min(int(ranks[-1]), cut)
    return int(np.searchsorted(ranks, end, side="right")) / end


def _labels(lists: dict[str, np.ndarray], query: int, gallery: int) -> dict[str, np.ndarray]:
    found = {name: np.asarray(given, dtype=np.int64).reshape(-1) for name, given in lists.items()}
    everything = np.concatenate(list(found.values()))
    if len(everything) and not 0 <= everything.min() <= everything.max() < gallery:
        outside = everything.max() if everything.max() >= gallery else everything.min()
        raise InputError(f"query {query} lists gallery image {outside}, but there are {gallery} images, counted from 0")
    values, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"query {query} lists gallery image {values[counts > 1][0]} twice")
    return found


@dataclass(frozen=True)
class _ListedImages:
    """The lists of a query, all their indices in ascending order, and how many gallery images precede each."""

    labels: dict[str, np.ndarray]
    indices: np.ndarray
    ahead: np.ndarray

    def ranks(self, find: tuple[str, ...], ignore: tuple[str, ...]) -> np.ndarray:
        """Return the ranks of the images to find, from 1, ascending, with ignored images removed."""
        order = np.argsort(self.ahead)
        ignored, found = (
            np.isin(self.indices[order], np.concatenate([self.labels[name] for name in names]))
            for names in (ignore, find)
        )
        return (1 + self.ahead[order] - np.cumsum(ignored))[found]


def _no_pairs(*_: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def _scores(setup: str, listed: list[_ListedImages], gallery: int) -> RevisitedScores:
    ranks = [of_query.ranks(*SETUPS[setup]) for of_query in listed]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in ranks])]).astype(np.int64)
    if offsets[-1] == 0:
        raise InputError(f"0 of {len(ranks)} queries have an image to find in the setup {setup!r}")
    ranking = Ranking(np.concatenate(ranks), offsets, gallery)
    precision = np.where(ranking.valid, ranking.average_precision_trapezoid, np.nan)
    cuts = {k: float(np.mean([precision_at(r, k) for r in ranks if len(r)])) for k in CUTS}
    valid = int(ranking.valid.sum())
    return RevisitedScores(float(np.nanmean(precision)), cuts, precision, valid, len(ranks) - valid)
