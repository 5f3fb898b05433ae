"""Verification of pairs: ROC, TPR at a given FPR and the area under the curve, counted exactly.

Pairs are those of the retrieval protocol: every query with every gallery image that is not junk for it. A pair is
accepted if its distance is at most a threshold. True matches are few and their distances are kept; for the other pairs
only their number between two adjacent true matches is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.tiles import (
    DistanceTile,
    check_matrices,
    columns_in_tile,
    distance_tiles,
    metric_pair_distances,
)
from reid.ranking.protocols.market import market_ground_truth
from reid.records import Features

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Verification:
    """The ROC curve at every threshold that accepts another true match.

    Attributes:
        distances: (T,) float64 distinct distances of the true matches, ascending: Euclidean, or 1 - cos.
        accepted: (T,) int64 numbers of true matches at or below each distance.
        nearer: (T,) int64 numbers of other pairs below each distance.
        as_near: (T,) int64 numbers of other pairs at or below each distance.
        matches: Number of true matches.
        others: Number of other pairs.
    """

    distances: np.ndarray = field(repr=False)
    accepted: np.ndarray = field(repr=False)
    nearer: np.ndarray = field(repr=False)
    as_near: np.ndarray = field(repr=False)
    matches: int
    others: int

    @property
    def true_positive_rate(self) -> np.ndarray:
        """(T,) float64 fractions of the true matches accepted at each threshold."""
        return self.accepted / self.matches

    @property
    def false_positive_rate(self) -> np.ndarray:
        """(T,) float64 fractions of the other pairs accepted at each threshold."""
        return self.as_near / self.others

    @property
    def area(self) -> float:
        """Area under the ROC curve: probability that a true match is nearer than another pair, ties counted half."""
        added = np.diff(self.accepted, prepend=0)
        won = (added * (2 * self.others - self.nearer - self.as_near)).astype(np.float64)
        return float(won.sum() / (2 * self.matches * self.others))

    def at(self, rate: float) -> tuple[float, float]:
        """Find the largest threshold whose FPR is at most a rate.

        Args:
            rate: False positive rate, 0 .. 1.

        Returns:
            TPR and threshold; 0 and NaN if there is none. The threshold is the distance of a true match; every
            threshold up to the next one has the same TPR.
        """
        allowed = int(np.searchsorted(self.as_near, rate * self.others, side="right"))
        if allowed == 0:
            return 0.0, float("nan")
        return float(self.true_positive_rate[allowed - 1]), float(self.distances[allowed - 1])

    def curve(self, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """Sample the curve at thresholds evenly spaced among the true matches, the last included.

        Args:
            points: Largest number of thresholds.

        Returns:
            FPR and TPR.
        """
        which = np.unique(np.linspace(0, len(self.distances) - 1, points).round().astype(np.int64))
        return self.false_positive_rate[which], self.true_positive_rate[which]

    def to_json(self, rates: Sequence[float] = FALSE_POSITIVE_RATES) -> dict[str, Any]:
        """Summarize the curve.

        Args:
            rates: False positive rates, 0 .. 1.

        Returns:
            The entry in `evaluation.json`; a threshold that does not exist is None.
        """
        points = [(rate, *self.at(rate)) for rate in rates]
        fpr, tpr = self.curve()
        return {
            "matches": self.matches,
            "others": self.others,
            "area": self.area,
            "tpr_at_fpr": {f"{rate:g}": tpr for rate, tpr, _ in points},
            "threshold_at_fpr": {f"{rate:g}": None if np.isnan(edge) else edge for rate, _, edge in points},
            "curve": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        }


def verify(query: Features, gallery: Features, *, metric: str = "euclidean") -> Verification:
    """Compute the ROC curve of all query x gallery pairs except junk.

    Counts are those of the distances summed in the fixed order, independent of the library; memory grows with the
    number of true matches, not of pairs.

    Args:
        query: Query features with identities and cameras.
        gallery: Gallery features with identities and cameras.
        metric: "euclidean" or "cosine".

    Returns:
        Counts of accepted pairs at every threshold, and the rates derived from them.

    Raises:
        InputError: If `reid.ranking.evaluate` raises it, or every pair is a true match or junk.
    """
    truth = market_ground_truth(query, gallery)
    check_matrices(query.values, gallery.values, metric)
    counts = truth.counts
    excluded = [np.sort(np.concatenate(pair)) for pair in zip(truth.matches, truth.same_camera, strict=True)]
    others = len(counts) * (len(gallery.identities) - len(truth.unlabeled)) - sum(map(len, excluded))
    if others == 0:
        raise InputError("every pair is a true match or junk: there is no negative pair")

    rows, columns = np.repeat(np.arange(len(counts)), counts), np.concatenate(truth.matches)
    exact = np.sort(metric_pair_distances(query.values, gallery.values, rows, columns, metric=metric))
    thresholds, last = np.unique(exact[::-1], return_index=True)
    counter = ThresholdCounter(thresholds)
    for tile in distance_tiles(query.values, gallery.values, metric=metric, title="pairs"):
        tile.distances[:, columns_in_tile(tile, truth.unlabeled)] = np.inf
        for i, row in enumerate(tile.distances, tile.first_query):
            row[columns_in_tile(tile, excluded[i])] = np.inf
        counter.add(tile)
    squared = thresholds if metric == "euclidean" else thresholds / 2
    return Verification(
        distances=np.sqrt(squared) if metric == "euclidean" else squared,
        accepted=len(exact) - last,
        nearer=counter.nearer(),
        as_near=counter.as_near(),
        matches=len(exact),
        others=others,
    )


class ThresholdCounter:
    """Counts the distances below, and at or below, each of several thresholds.

    Args:
        thresholds: (T,) float64, ascending.
    """

    def __init__(self, thresholds: np.ndarray) -> None:
        self._thresholds = thresholds
        # Counts in the gaps before, between and after the thresholds, and at the thresholds themselves.
        self._between = np.zeros(len(thresholds) + 1, dtype=np.int64)
        self._equal = np.zeros(len(thresholds), dtype=np.int64)

    def add(self, tile: DistanceTile) -> None:
        """Count the finite entries of a tile; those within the bound of a threshold are computed exactly.

        Args:
            tile: A tile; excluded pairs are infinite.
        """
        bound = tile.bound.max()
        lower, upper = self._thresholds - bound, self._thresholds + bound
        apart = np.flatnonzero(lower[1:] > upper[:-1]) + 1
        starts, ends = np.concatenate([[0], apart]), np.concatenate([apart, [len(lower)]])
        # Thresholds starts[k] .. ends[k] - 1 form one interval in which only exact distances decide.
        opens, closes = lower[starts], upper[ends - 1]
        values = np.sort(tile.distances, axis=None)
        before = np.searchsorted(values, opens, side="left")
        after = np.searchsorted(values, closes, side="right")
        finite = np.searchsorted(values, np.inf, side="left")
        decided = np.concatenate([before, [finite]]) - np.concatenate([[0], after])
        self._between[np.concatenate([starts, [len(lower)]])] += decided
        undecided = np.flatnonzero(after > before)
        if len(undecided):
            self._resolve(tile, opens[undecided], closes[undecided])

    def _resolve(self, tile: DistanceTile, opens: np.ndarray, closes: np.ndarray) -> None:
        for first in range(0, len(tile.distances), 64):
            rows = tile.distances[first : first + 64]
            interval = np.searchsorted(opens, rows, side="right") - 1
            query, column = np.nonzero((interval >= 0) & (rows <= closes[interval]))
            exact = tile.exact(query + first, column)
            position = np.searchsorted(self._thresholds, exact, side="left")
            hit = position < len(self._thresholds)
            hit[hit] = self._thresholds[position[hit]] == exact[hit]
            self._equal += np.bincount(position[hit], minlength=len(self._equal))
            self._between += np.bincount(position[~hit], minlength=len(self._between))

    def nearer(self) -> np.ndarray:
        """Return the number of distances below each threshold.

        Returns:
            (T,) int64 counts.
        """
        return np.cumsum(self._between[:-1]) + np.cumsum(self._equal) - self._equal

    def as_near(self) -> np.ndarray:
        """Return the number of distances at or below each threshold.

        Returns:
            (T,) int64 counts.
        """
        return np.cumsum(self._between[:-1]) + np.cumsum(self._equal)
