"""Shortlists: for every row the few indices whose scores may be among its smallest, collected one tile at a time.

A score is known only as an interval, of which the lower bound is kept. Once the k-th smallest upper bound of a row is
known, no index whose lower bound is above it can be one of the k smallest; this cutoff decreases as more are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A lower bound is rounded down to float32; an upper bound derived from it is raised by this relative amount.
_ROUNDING = 2.0**-21
_ROWS = 4096


@dataclass
class Shortlist:
    """At most `capacity` indices per row that may be among its `k` smallest.

    Attributes:
        k: Number of smallest scores of interest.
        indices: (N, capacity) int32 indices.
        lower: (N, capacity) float32 lower bounds of their scores.
        size: (N,) int64 number of entries in use.
        cutoff: (N,) float64, not below the k-th smallest score.
        half_width: (N,) float64 largest half width of the intervals.
        overflowed: (N,) bool, rows where more than `capacity` indices are too close to distinguish, as with many ties.
            These hold nothing and must be decided otherwise.
    """

    k: int
    indices: np.ndarray
    lower: np.ndarray
    size: np.ndarray
    cutoff: np.ndarray
    half_width: np.ndarray
    overflowed: np.ndarray

    @classmethod
    def empty(cls, rows: int, k: int, capacity: int) -> Shortlist:
        """Allocate empty shortlists.

        Args:
            rows: Number of rows N.
            k: Number of smallest scores of interest.
            capacity: Entries per row, at least `k`.

        Returns:
            Shortlists without entries.
        """
        return cls(
            k,
            np.empty((rows, capacity), dtype=np.int32),
            np.empty((rows, capacity), dtype=np.float32),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, np.inf),
            np.zeros(rows),
            np.zeros(rows, dtype=bool),
        )

    def add(self, rows: np.ndarray, indices: np.ndarray, lower: np.ndarray, half_width: float) -> None:
        """Add pairs, each at most once.

        Args:
            rows: (n,) int64 rows.
            indices: (n,) int64 indices to add to them.
            lower: (n,) float64 lower bounds of their scores.
            half_width: Half the distance of lower and upper bounds.
        """
        if not len(rows):
            return
        lower = _float32_below(lower)
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            rows, indices, lower = rows[order], indices[order], lower[order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        touched, number = rows[first], np.diff(first, append=len(rows))
        self.half_width[touched] = np.maximum(self.half_width[touched], half_width)
        column = np.arange(len(rows)) - np.repeat(first, number)
        fits = self.size[touched] + number <= self.indices.shape[1]
        appended = np.repeat(fits, number)
        row = rows[appended]
        column[appended] += self.size[row]
        self.indices[row, column[appended]] = indices[appended]
        self.lower[row, column[appended]] = lower[appended]
        self.size[touched[fits]] += number[fits]
        if not fits.all():
            rest, number = ~appended, number[~fits]
            shape = (len(number), int(number.max()))
            more, bounds = np.zeros(shape, dtype=np.int32), np.full(shape, np.inf, dtype=np.float32)
            row = np.repeat(np.arange(len(number)), number)
            more[row, column[rest]], bounds[row, column[rest]] = indices[rest], lower[rest]
            self._shrink(touched[~fits], more, bounds)

    def finalize(self) -> None:
        """Drop entries above the last cutoff, so that every row only holds what may be among its smallest."""
        for start in range(0, len(self.size), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(self.size)))
            self._shrink(rows, np.empty((len(rows), 0), dtype=np.int32), np.empty((len(rows), 0), dtype=np.float32))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """List all entries.

        Returns:
            (n,) int64 rows, ascending, and (n,) int64 indices.
        """
        used = np.arange(self.indices.shape[1]) < self.size[:, None]
        return np.repeat(np.arange(len(self.size)), self.size), self.indices[used].astype(np.int64)

    def _shrink(self, rows: np.ndarray, more: np.ndarray, bounds: np.ndarray) -> None:
        """Lower the cutoffs of `rows` by their entries and `more` (n, m), with infinite `bounds` where unused."""
        capacity = self.indices.shape[1]
        used = np.arange(capacity) < self.size[rows, None]
        lower = np.concatenate([np.where(used, self.lower[rows], np.float32(np.inf)), bounds], axis=1)
        indices = np.concatenate([self.indices[rows], more], axis=1)
        last = np.partition(lower, self.k - 1, axis=1)[:, self.k - 1].astype(np.float64)
        self.cutoff[rows] = np.minimum(self.cutoff[rows], last + 2 * self.half_width[rows] + _ROUNDING * np.abs(last))
        order = np.argsort(lower, axis=1)[:, :capacity]
        number = (lower <= self.cutoff[rows, None]).sum(axis=1)
        number[np.isinf(self.cutoff[rows])] = (lower < np.inf).sum(axis=1)[np.isinf(self.cutoff[rows])]
        self.indices[rows] = np.take_along_axis(indices, order, axis=1)
        self.lower[rows] = np.take_along_axis(lower, order, axis=1)
        overflowed = rows[number > capacity]
        self.size[rows] = np.minimum(number, capacity)
        self.overflowed[overflowed] = True
        self.size[overflowed] = 0
        self.cutoff[overflowed] = -np.inf


def _float32_below(values: np.ndarray) -> np.ndarray:
    """Round float64 down to the next float32."""
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))
