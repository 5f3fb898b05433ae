"""Verification: is this pair the same person? ROC, TPR at a given FPR and the area under the curve, counted exactly.

Pairs are those of the retrieval protocol: every query with every gallery image that is not junk for it. A pair is
accepted where its distance is at most a threshold. True matches are few and their distances are kept; of the other
pairs only their number between two neighboring true matches is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking.exact.tiles import Tile, check_matrices, pair_distances, tiles, within
from reid.ranking.protocols.market import divide
from reid.records import Features

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Verification:
    """The ROC curve at every threshold where a true match is gained.

    distances: (T,) float64, the distinct distances of the true matches, ascending: Euclidean, or 1 - cos. accepted:
    (T,) int64, true matches at or below each. nearer, as_near: (T,) int64, other pairs below each and at or below it.
    matches, others: numbers of pairs.
    """

    distances: np.ndarray = field(repr=False)
    accepted: np.ndarray = field(repr=False)
    nearer: np.ndarray = field(repr=False)
    as_near: np.ndarray = field(repr=False)
    matches: int
    others: int

    @property
    def true_positive_rate(self) -> np.ndarray:
        """(T,) float64: share of the true matches accepted at each threshold."""
        return self.accepted / self.matches

    @property
    def false_positive_rate(self) -> np.ndarray:
        """(T,) float64: share of the other pairs accepted at each threshold."""
        return self.as_near / self.others

    @property
    def area(self) -> float:
        """Area under the ROC curve: the chance that a true match is nearer than another pair, equality counted half."""
        gained = np.diff(self.accepted, prepend=0)
        won = (gained * (2 * self.others - self.nearer - self.as_near)).astype(np.float64)
        return float(won.sum() / (2 * self.matches * self.others))

    def at(self, rate: float) -> tuple[float, float]:
        """(TPR, threshold) at the largest threshold whose FPR is at most `rate`; TPR 0 and NaN where there is none.

        The threshold is the distance of a true match: up to the next one, every other has the same TPR.
        """
        allowed = int(np.searchsorted(self.as_near, rate * self.others, side="right"))
        if allowed == 0:
            return 0.0, float("nan")
        return float(self.true_positive_rate[allowed - 1]), float(self.distances[allowed - 1])

    def curve(self, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """(FPR, TPR) at no more than `points` thresholds, evenly spaced among the true matches, the last included."""
        places = np.unique(np.linspace(0, len(self.distances) - 1, points).round().astype(np.int64))
        return self.false_positive_rate[places], self.true_positive_rate[places]

    def to_json(self, rates: Sequence[float] = FALSE_POSITIVE_RATES) -> dict[str, Any]:
        """Rates as fractions in [0, 1]; a threshold that does not exist is null."""
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
    """The ROC curve of all query x gallery pairs, junk left out.

    Counts are those of the distances summed in the fixed order, whatever the library does; memory grows with the number
    of true matches and not with that of the pairs. Raises InputError as `evaluate` does, and where all pairs match.
    """
    protocol = divide(query, gallery)
    check_matrices(query.values, gallery.values, metric)
    counts = protocol.counts
    left_out = [np.sort(np.concatenate(pair)) for pair in zip(protocol.matches, protocol.same_camera, strict=True)]
    others = len(counts) * (len(gallery.identities) - len(protocol.unlabeled)) - sum(map(len, left_out))
    if others == 0:
        raise InputError("every pair is a true match or junk: there is none to be told apart from")

    rows, columns = np.repeat(np.arange(len(counts)), counts), np.concatenate(protocol.matches)
    exact = np.sort(pair_distances(query.values, gallery.values, rows, columns, metric=metric))
    thresholds, last = np.unique(exact[::-1], return_index=True)
    counter = ThresholdCounter(thresholds)
    for tile in tiles(query.values, gallery.values, metric=metric, title="pairs"):
        tile.distances[:, within(tile, protocol.unlabeled)] = np.inf
        for i, row in enumerate(tile.distances, tile.first_query):
            row[within(tile, left_out[i])] = np.inf
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
    """How many distances lie below each of ascending thresholds, and how many at or below it."""

    def __init__(self, thresholds: np.ndarray) -> None:
        self._thresholds = thresholds
        # Of the gaps before, between and behind the thresholds; and of the thresholds themselves.
        self._between = np.zeros(len(thresholds) + 1, dtype=np.int64)
        self._equal = np.zeros(len(thresholds), dtype=np.int64)

    def add(self, tile: Tile) -> None:
        """Count the finite entries of a tile; those within the bound of a threshold are computed exactly."""
        bound = tile.bound.max()
        lower, upper = self._thresholds - bound, self._thresholds + bound
        apart = np.flatnonzero(lower[1:] > upper[:-1]) + 1
        starts, ends = np.concatenate([[0], apart]), np.concatenate([apart, [len(lower)]])
        # Thresholds starts[k] .. ends[k] - 1 make one stretch in which nothing is decided without an exact distance.
        opens, closes = lower[starts], upper[ends - 1]
        values = np.sort(tile.distances, axis=None)
        before = np.searchsorted(values, opens, side="left")
        behind = np.searchsorted(values, closes, side="right")
        finite = np.searchsorted(values, np.inf, side="left")
        decided = np.concatenate([before, [finite]]) - np.concatenate([[0], behind])
        self._between[np.concatenate([starts, [len(lower)]])] += decided
        doubtful = np.flatnonzero(behind > before)
        if len(doubtful):
            self._resolve(tile, opens[doubtful], closes[doubtful])

    def _resolve(self, tile: Tile, opens: np.ndarray, closes: np.ndarray) -> None:
        for first in range(0, len(tile.distances), 64):
            rows = tile.distances[first : first + 64]
            stretch = np.searchsorted(opens, rows, side="right") - 1
            query, column = np.nonzero((stretch >= 0) & (rows <= closes[stretch]))
            exact = tile.exact(query + first, column)
            place = np.searchsorted(self._thresholds, exact, side="left")
            hit = place < len(self._thresholds)
            hit[hit] = self._thresholds[place[hit]] == exact[hit]
            self._equal += np.bincount(place[hit], minlength=len(self._equal))
            self._between += np.bincount(place[~hit], minlength=len(self._between))

    def nearer(self) -> np.ndarray:
        """(T,) int64: distances below each threshold."""
        return np.cumsum(self._between[:-1]) + np.cumsum(self._equal) - self._equal

    def as_near(self) -> np.ndarray:
        """(T,) int64: distances at or below each threshold."""
        return np.cumsum(self._between[:-1]) + np.cumsum(self._equal)
