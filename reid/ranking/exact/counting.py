"""How many gallery rows are nearer than each threshold: decided by the first pass where its bound allows.

A block of queries meets a tile of the gallery. Rows that may be as near as the block's farthest threshold are picked
out and sorted by query and approximate distance; each threshold then cuts them into nearer, undecided and farther.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact.first_pass import Approximation

# A key holds the query's place in its block, 32 bits of the distance, and the place in the tile.
PLACE_BITS = 16
QUERY_BITS = 63 - 32 - PLACE_BITS
# Undecided comparisons listed at once: with equal rows there may be a hundred times as many as pairs.
_LISTED = 1 << 18


@dataclass(frozen=True)
class Thresholds:
    """Distances to compare with, grouped by query: query: (M,) int64, ascending, place in the block. least, most: (M,)
    float64, less the query's |q|^2, an interval the threshold is known to lie in.
    """

    query: np.ndarray
    least: np.ndarray
    most: np.ndarray


@dataclass(frozen=True)
class Counts:
    """nearer: (M,) int64, rows of the tile that are certainly nearer. keys: sorted, one a pair that may be near enough.
    start, end: (M,) int64, keys[start:end] are the pairs that each threshold leaves undecided.
    """

    nearer: np.ndarray
    keys: Any
    start: np.ndarray
    end: np.ndarray

    def undecided(self, at_once: int = _LISTED) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The comparisons left, about `at_once` at a time: (n,) int64 thresholds and (n,) int64 places in the tile."""
        number = self.end - self.start
        some = np.flatnonzero(number)
        portion = np.cumsum(number[some]) // at_once
        for part in np.split(some, np.flatnonzero(np.diff(portion)) + 1):
            threshold = np.repeat(part, number[part])
            before = np.repeat(np.cumsum(number[part]) - number[part], number[part])
            position = np.arange(len(threshold)) - before + self.start[threshold]
            yield threshold, arrays.host(arrays.rows_of(self.keys, position)) & ((1 << PLACE_BITS) - 1)


def count(found: Approximation, thresholds: Thresholds) -> Counts:
    """Compare every pair of a block and a tile with the thresholds of its query. At most 2^15 queries, 2^16 rows.

    Pairs to leave out are infinite in `found.values`.
    """
    lowest, highest = _limits(found, thresholds)
    queries = thresholds.query
    cut = np.full(len(found.half_width), -np.inf, dtype=np.float32)
    np.maximum.at(cut, queries, highest)
    keys = candidates(found.values, cut)
    starts = arrays.searchsorted(keys, arrays.like(np.arange(len(cut)) << (32 + PLACE_BITS), keys))
    first = arrays.host(starts)[queries]
    group = queries << (32 + PLACE_BITS)
    # -0.0 and 0.0 are one distance and two patterns of bits.
    bits = to_bits(lowest) - (lowest == 0), to_bits(highest) + (highest == 0) + 1
    wanted = np.concatenate([group + (bits[0] << PLACE_BITS), group + (bits[1] << PLACE_BITS)])
    start, end = np.split(arrays.host(arrays.searchsorted(keys, arrays.like(wanted, keys))), 2)
    return Counts(start - first, keys, start, end)


def candidates(values: Any, cut: np.ndarray) -> Any:
    """Sorted keys of the pairs whose value is at most `cut`: (b,) float32, one a query; an infinite value is none."""
    width = values.shape[1]
    flat = arrays.flatnonzero(values <= arrays.like(cut, values)[:, None])
    bits = to_bits(values.reshape(-1)[flat])
    bits <<= PLACE_BITS
    bits += flat
    # The query takes the place of what its rows before it add to the flat place.
    flat //= width
    flat *= (1 << (32 + PLACE_BITS)) - width
    bits += flat
    return arrays.sort(bits)


def to_bits(values: Any) -> Any:
    """float32 -> int64 in 0 .. 2^32 - 1 in the same order; the two zeros differ by one."""
    whole = arrays.as_integers(values)
    return arrays.as_type(whole ^ ((whole >> 31) & 0x7FFFFFFF), "int64") + 2**31


def _limits(found: Approximation, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """float32 numbers between which a pair of the query cannot be told from the threshold, both included."""
    half = found.half_width[thresholds.query]
    with np.errstate(over="ignore"):
        low = np.nextafter((thresholds.least - half).astype(np.float32), np.float32(-np.inf))
        high = np.nextafter((thresholds.most + half).astype(np.float32), np.float32(np.inf))
    # Infinity is what is left out.
    largest = np.finfo(np.float32).max
    return np.clip(low, -largest, largest), np.clip(high, -largest, largest)
