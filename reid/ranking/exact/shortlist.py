"""Shortlists: for every row the few places whose scores may be among its smallest, gathered a tile at a time.

A score is known only within a width: what is kept is its lower bound. Once the k-th smallest upper bound of a row is
known, no place whose lower bound is above it can be one of the k smallest; that cutoff sinks as more places come in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A lower bound is rounded to float32 downwards; an upper bound made from it is raised by this share.
_ROUNDING = 2.0**-21
_ROWS = 4096


@dataclass
class Shortlist:
    """Of every row, at most `capacity` places that may be among its `wanted` smallest.

    places: (N, capacity) int32. lowest: (N, capacity) float32, lower bounds of their scores. held: (N,) how many of
    these are taken. cutoff: (N,) float64, no smaller than the `wanted`-th smallest score. reach: (N,) float64, the
    largest width of what is held. crowded: (N,) rows where more places than `capacity` are too close to tell apart, as
    with many ties; these hold nothing and must be decided otherwise.
    """

    wanted: int
    places: np.ndarray
    lowest: np.ndarray
    held: np.ndarray
    cutoff: np.ndarray
    reach: np.ndarray
    crowded: np.ndarray

    @classmethod
    def empty(cls, rows: int, wanted: int, capacity: int) -> Shortlist:
        """Room for `capacity` places a row, `capacity` >= `wanted`."""
        return cls(
            wanted,
            np.empty((rows, capacity), dtype=np.int32),
            np.empty((rows, capacity), dtype=np.float32),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, np.inf),
            np.zeros(rows),
            np.zeros(rows, dtype=bool),
        )

    def offer(self, rows: np.ndarray, places: np.ndarray, lowest: np.ndarray, half_width: float) -> None:
        """Take in some pairs, each once: lowest (n,) float64 are lower bounds, 2 half_width below the upper ones."""
        if not len(rows):
            return
        lowest = _float32_below(lowest)
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            rows, places, lowest = rows[order], places[order], lowest[order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        touched, number = rows[first], np.diff(first, append=len(rows))
        self.reach[touched] = np.maximum(self.reach[touched], half_width)
        column = np.arange(len(rows)) - np.repeat(first, number)
        fits = self.held[touched] + number <= self.places.shape[1]
        appended = np.repeat(fits, number)
        row = rows[appended]
        column[appended] += self.held[row]
        self.places[row, column[appended]] = places[appended]
        self.lowest[row, column[appended]] = lowest[appended]
        self.held[touched[fits]] += number[fits]
        if not fits.all():
            rest, number = ~appended, number[~fits]
            shape = (len(number), int(number.max()))
            more, bounds = np.zeros(shape, dtype=np.int32), np.full(shape, np.inf, dtype=np.float32)
            row = np.repeat(np.arange(len(number)), number)
            more[row, column[rest]], bounds[row, column[rest]] = places[rest], lowest[rest]
            self._shrink(touched[~fits], more, bounds)

    def close(self) -> None:
        """Drop what the last cutoff rules out: then every row holds only what may be among its smallest."""
        for start in range(0, len(self.held), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(self.held)))
            self._shrink(rows, np.empty((len(rows), 0), dtype=np.int32), np.empty((len(rows), 0), dtype=np.float32))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) rows, ascending, and (n,) places, int64, of all that is held."""
        taken = np.arange(self.places.shape[1]) < self.held[:, None]
        return np.repeat(np.arange(len(self.held)), self.held), self.places[taken].astype(np.int64)

    def _shrink(self, rows: np.ndarray, more: np.ndarray, bounds: np.ndarray) -> None:
        """Lower the cutoffs of `rows` by what they hold and `more` (n, m), `bounds` infinite where there is none."""
        capacity = self.places.shape[1]
        taken = np.arange(capacity) < self.held[rows, None]
        lowest = np.concatenate([np.where(taken, self.lowest[rows], np.float32(np.inf)), bounds], axis=1)
        places = np.concatenate([self.places[rows], more], axis=1)
        last = np.partition(lowest, self.wanted - 1, axis=1)[:, self.wanted - 1].astype(np.float64)
        self.cutoff[rows] = np.minimum(self.cutoff[rows], last + 2 * self.reach[rows] + _ROUNDING * np.abs(last))
        order = np.argsort(lowest, axis=1)[:, :capacity]
        number = (lowest <= self.cutoff[rows, None]).sum(axis=1)
        number[np.isinf(self.cutoff[rows])] = (lowest < np.inf).sum(axis=1)[np.isinf(self.cutoff[rows])]
        self.places[rows] = np.take_along_axis(places, order, axis=1)
        self.lowest[rows] = np.take_along_axis(lowest, order, axis=1)
        crowded = rows[number > capacity]
        self.held[rows] = np.minimum(number, capacity)
        self.crowded[crowded] = True
        self.held[crowded] = 0
        self.cutoff[crowded] = -np.inf


def _float32_below(values: np.ndarray) -> np.ndarray:
    """float64 -> the next float32 below."""
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))
