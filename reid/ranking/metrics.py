"""AP, INP and CMC from the ranks of the true matches.

A query with m true matches at the ranks r_1 < ... < r_m (from 1, junk removed) has precision j / r_j at its j-th hit
and (j - 1) / (r_j - 1) at the rank before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.records import Scores


@dataclass(frozen=True)
class Work:
    """How much an evaluation computed.

    Attributes:
        pairs: Number of approximated distances.
        recomputed: Number of comparisons of a gallery row with a true match that these left undecided; they were
            decided by a tighter bound or by exact distances.
        first_pass: "float32", "integers", or several in the order of their first use: "integers, then float32" if
            integers left too many comparisons undecided, or if a GPU does not multiply integers in the shape of some
            tile; "float64" at the end if queries were too close to too many rows, as with collapsed features.
    """

    pairs: int
    recomputed: int
    first_pass: str


@dataclass(frozen=True)
class Ranking:
    """Ranks of the true matches of every query; its measures are (Q,) arrays in the order of the queries.

    Attributes:
        ranks: (M,) int64 ranks of all true matches, query after query, ascending within a query, from 1, junk removed.
        offsets: (Q + 1,) int64; query i owns ranks[offsets[i]:offsets[i + 1]], nothing if it has no true match.
        gallery: Number of gallery images.
        work: How much was computed to find them, if known.
        identities: (Q,) int64 identities of the queries, if known.
    """

    ranks: np.ndarray
    offsets: np.ndarray
    gallery: int
    work: Work | None = None
    identities: np.ndarray | None = None

    def __post_init__(self) -> None:
        ranks, offsets = self.ranks, self.offsets
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(ranks) or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets don't divide {len(ranks)} ranks among the queries")
        ascending = np.diff(ranks) > 0
        ascending[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(ranks))] - 1] = True
        if not ascending.all() or (len(ranks) and not 1 <= ranks.min() <= ranks.max() <= self.gallery):
            raise ValueError("the ranks of a query must ascend and be in [1, gallery]")

    def hits(self, query: int) -> np.ndarray:
        """Return the ranks of the true matches of one query.

        Args:
            query: Index of the query.

        Returns:
            (m,) int64 ranks, ascending.
        """
        return self.ranks[self.offsets[query] : self.offsets[query + 1]]

    @property
    def matches(self) -> np.ndarray:
        """(Q,) int64 number of true matches."""
        return np.diff(self.offsets)

    @property
    def valid(self) -> np.ndarray:
        """(Q,) bool, whether there is a true match."""
        return self.matches > 0

    @property
    def first_hit(self) -> np.ndarray:
        """(Q,) int64 rank of the first true match; 0 if there is none."""
        first = np.zeros(len(self.matches), dtype=np.int64)
        first[self.valid] = self.ranks[self.offsets[:-1][self.valid]]
        return first

    @property
    def average_precision(self) -> np.ndarray:
        """(Q,) float64 AP as a rectangle sum, 1/m sum_j j / r_j; NaN if there is no true match."""
        return np.where(self.valid, self._mean_over_hits(self._hit_number() / self.ranks), np.nan)

    @property
    def average_precision_trapezoid(self) -> np.ndarray:
        """(Q,) float64 AP as in the code of the Market-1501 authors; 0 if there is no true match.

        The sum over ranks n of (recall_n - recall_{n-1}) (P_{n-1} + P_n) / 2 with P_0 = 1. Recall only changes at a
        hit, by 1/m, so only hits contribute.
        """
        number = self._hit_number()
        before = np.where(self.ranks > 1, (number - 1) / np.maximum(self.ranks - 1, 1), 1.0)
        return self._mean_over_hits((before + number / self.ranks) / 2)

    @property
    def inverse_negative_penalty(self) -> np.ndarray:
        """(Q,) float64 INP, true matches / rank of the last one; NaN if there is no true match."""
        penalty = np.full(len(self.matches), np.nan)
        penalty[self.valid] = self.matches[self.valid] / self.ranks[self.offsets[1:][self.valid] - 1]
        return penalty

    def cmc(self, max_rank: int = 50) -> np.ndarray:
        """Compute the CMC curve.

        Args:
            max_rank: Length of the curve, limited to the size of the gallery.

        Returns:
            (min(max_rank, gallery),) float64 fractions of the valid queries with a hit at rank k or before, k from 1.

        Raises:
            InputError: If `max_rank` is below 1.
        """
        if max_rank < 1:
            raise InputError(f"max_rank {max_rank}: the CMC curve requires at least 1")
        length = min(max_rank, self.gallery)
        first = self.first_hit[self.valid]
        found = np.bincount(first[first <= length], minlength=length + 1)[1:]
        return np.cumsum(found) / max(len(first), 1)

    def scores(self, max_rank: int = 50) -> Scores:
        """Average over queries: over the valid ones, mAP_trapezoid over all.

        Args:
            max_rank: Length of the CMC curve.

        Returns:
            Averages over queries, each in [0, 1].

        Raises:
            InputError: If no query has a true match.
        """
        valid, first = self.valid, self.first_hit
        precision, penalty = self.average_precision[valid], self.inverse_negative_penalty[valid]
        if not valid.any():
            raise InputError(f"0 of {len(valid)} queries have a true match in the gallery")
        rank1, rank5, rank10 = (float(np.mean(first[valid] <= k)) for k in (1, 5, 10))
        return Scores(
            rank1=rank1,
            rank5=rank5,
            rank10=rank10,
            mAP=float(precision.mean()),
            mAP_trapezoid=float(self.average_precision_trapezoid.mean()),
            mINP=float(penalty.mean()),
            cmc=tuple(self.cmc(max_rank).tolist()),
            queries=int(valid.sum()),
            dropped_queries=int((~valid).sum()),
            per_query=np.stack([first[valid] == 1, precision, penalty], axis=1),
            identities=None if self.identities is None else self.identities[valid],
        )

    def _owner(self) -> np.ndarray:
        """Return the (M,) query of each rank."""
        return np.repeat(np.arange(len(self.matches)), self.matches)

    def _hit_number(self) -> np.ndarray:
        """Return (M,) numbers j of the j-th hit of its query, from 1."""
        return np.arange(len(self.ranks)) - self.offsets[self._owner()] + 1

    def _mean_over_hits(self, values: np.ndarray) -> np.ndarray:
        """Average (M,) values per query; 0 for a query without hits."""
        sums = np.bincount(self._owner(), weights=values, minlength=len(self.matches))
        return sums / np.maximum(self.matches, 1)
