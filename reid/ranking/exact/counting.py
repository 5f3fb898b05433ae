"""Count gallery rows nearer than each threshold, as far as the bound of the first pass allows.

A block of queries is compared with a tile of the gallery. Rows that may be as near as the largest threshold of their
query are selected and sorted by query and approximate distance; each threshold then divides them into nearer, undecided
and farther rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.ranking import arrays
from reid.ranking.exact.first_pass import Approximation

# A key holds the index of the query in its block, 32 bits of the distance, and the index of the row in the tile.
INDEX_BITS = 16
QUERY_BITS = 63 - 32 - INDEX_BITS
# Undecided comparisons listed at once: with equal rows there may be a hundred times as many as pairs.
_UNDECIDED_BATCH = 1 << 18


@dataclass(frozen=True)
class Thresholds:
    """Distances to compare with, grouped by query.

    Attributes:
        query: (M,) int64 indices in the block, ascending.
        lower: (M,) float64 lower bounds of the thresholds, minus the query's |q|^2.
        upper: (M,) float64 upper bounds, minus |q|^2.
    """

    query: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class TileCounts:
    """Counts of one block of queries and one tile.

    Attributes:
        nearer: (M,) int64 numbers of rows of the tile that are certainly nearer than each threshold.
        keys: Sorted int64 keys, one per pair that may be near enough.
        start: (M,) int64 first key that each threshold leaves undecided.
        end: (M,) int64 index after the last undecided key.
    """

    nearer: np.ndarray
    keys: Any
    start: np.ndarray
    end: np.ndarray

    def only(self, some: np.ndarray) -> TileCounts:
        """Drop what is known of the other thresholds.

        Args:
            some: (M,) bool, thresholds to keep.

        Returns:
            Counts that are 0, with nothing undecided, for the others.
        """
        return TileCounts(np.where(some, self.nearer, 0), self.keys, self.start, np.where(some, self.end, self.start))

    def undecided(self, batch_size: int = _UNDECIDED_BATCH) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """List the undecided comparisons.

        Args:
            batch_size: Approximate number of comparisons per batch.

        Yields:
            (n,) int64 indices of thresholds and (n,) int64 indices of rows in the tile.
        """
        number = self.end - self.start
        some = np.flatnonzero(number)
        portion = np.cumsum(number[some]) // batch_size
        for part in np.split(some, np.flatnonzero(np.diff(portion)) + 1):
            threshold = np.repeat(part, number[part])
            before = np.repeat(np.cumsum(number[part]) - number[part], number[part])
            position = np.arange(len(threshold)) - before + self.start[threshold]
            yield threshold, arrays.to_numpy(arrays.rows_of(self.keys, position)) & ((1 << INDEX_BITS) - 1)


def count_in_tile(approximation: Approximation, thresholds: Thresholds) -> TileCounts:
    """Compare every pair of a block and a tile with the thresholds of its query.

    Args:
        approximation: At most 2^15 queries by 2^16 rows; the values of excluded pairs are infinite.
        thresholds: Thresholds of the queries in the block.

    Returns:
        Certain counts and the undecided comparisons.
    """
    lowest, highest = _limits(approximation, thresholds)
    queries = thresholds.query
    cutoff = np.full(len(approximation.half_width), -np.inf, dtype=np.float32)
    np.maximum.at(cutoff, queries, highest)
    keys = candidate_keys(approximation.values, cutoff)
    starts = arrays.searchsorted(keys, arrays.like(np.arange(len(cutoff)) << (32 + INDEX_BITS), keys))
    first = arrays.to_numpy(starts)[queries]
    group = queries << (32 + INDEX_BITS)
    # -0.0 and 0.0 are one distance with two bit patterns.
    bits = ordered_bits(lowest) - (lowest == 0), ordered_bits(highest) + (highest == 0) + 1
    limits = np.concatenate([group + (bits[0] << INDEX_BITS), group + (bits[1] << INDEX_BITS)])
    start, end = np.split(arrays.to_numpy(arrays.searchsorted(keys, arrays.like(limits, keys))), 2)
    return TileCounts(start - first, keys, start, end)


def candidate_keys(values: Any, cutoff: np.ndarray) -> Any:
    """Return sorted keys of the pairs whose value is at most the cutoff of their query.

    Args:
        values: (b, T) float32 array or tensor.
        cutoff: (b,) float32; no infinite value is selected.

    Returns:
        (n,) int64 keys: index of the query, ordered bits of the value, index of the row.
    """
    width = values.shape[1]
    flat = arrays.flatnonzero(values <= arrays.like(cutoff, values)[:, None])
    bits = ordered_bits(values.reshape(-1)[flat])
    bits <<= INDEX_BITS
    bits += flat
    # The flat index contains query * width, which is replaced by the shifted query.
    flat //= width
    flat *= (1 << (32 + INDEX_BITS)) - width
    bits += flat
    return arrays.sort(bits)


def ordered_bits(values: Any) -> Any:
    """Map float32 values to integers of the same order.

    Args:
        values: float32 array or tensor.

    Returns:
        int64 in 0 .. 2^32 - 1; the two zeros differ by one.
    """
    whole = arrays.as_integers(values)
    return arrays.as_type(whole ^ ((whole >> 31) & 0x7FFFFFFF), "int64") + 2**31


def _limits(approximation: Approximation, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Return the float32 range, both ends included, in which a pair cannot be distinguished from the threshold."""
    half = approximation.half_width[thresholds.query]
    with np.errstate(over="ignore"):
        low = np.nextafter((thresholds.lower - half).astype(np.float32), np.float32(-np.inf))
        high = np.nextafter((thresholds.upper + half).astype(np.float32), np.float32(np.inf))
    # Infinity marks excluded pairs.
    largest = np.finfo(np.float32).max
    return np.clip(low, -largest, largest), np.clip(high, -largest, largest)
