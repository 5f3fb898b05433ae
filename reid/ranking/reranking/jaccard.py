"""Re-ranked distances of one query after the other, from original distances and neighborhood vectors.

In float32 with a bound on the error, and in float64 for chosen pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csc_array, csr_array
from tqdm import tqdm

from reid.ranking.exact import bounds
from reid.ranking.exact.first_pass import Rows, approximate, prepare
from reid.ranking.exact.pair_distances import paired_distances
from reid.ranking.reranking.k_reciprocal import normalized

_QUERIES, _GALLERY_ROWS = 128, 8192
# A smaller job ends before a bar would be read.
_BAR_FROM = 1 << 28
# Where it is too small, distances are below `bounds.UNDERFLOW`, so that float32 decides nothing.
_LARGEST_INVERSE = 2.0**120


@dataclass(frozen=True)
class Mixture:
    """What re-ranked distances are made of.

    query: (Q, D), gallery: (G, D), the features compared. vectors: (Q, N), the queries' neighborhoods; inverted:
    (G, N), the gallery's, by columns. largest: (Q,) float64, each query's largest squared distance to the N rows.
    weight: the share of the original distance. distance_power: its power, and that of the weights in the vectors.
    """

    query: np.ndarray
    gallery: np.ndarray
    vectors: csr_array
    inverted: csc_array
    largest: np.ndarray
    weight: float
    distance_power: int

    def mixed(self, query: Any, squared: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """(n,) float64: re-ranked distances of `query`, one or (n,), from squared distances and what is `shared`."""
        original = normalized(squared, self.largest[query], self.distance_power)
        return (1 - self.weight) * (1 - shared / (2 - shared)) + self.weight * original

    def distances(self, query: np.ndarray, places: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """(n,) float64: re-ranked distances of n queries to one gallery image each."""
        return self.mixed(query, paired_distances(self.query, self.gallery, query, places), shared)


@dataclass(frozen=True)
class Row:
    """One query against the gallery.

    distances: (G,) float32, at least 0, within `half_width` of the re-ranked distances. shared: (G,) float64, the sum
    over the entries of min(vector of the query, vector of the image).
    """

    distances: np.ndarray
    half_width: float
    shared: np.ndarray


def mixture_rows(mixture: Mixture, room: np.ndarray, *, integers: bool) -> Iterator[tuple[int, Row]]:
    """Every query with its distances, in a buffer that the caller may change and later rows overwrite.

    room: (N, D) float32 to work in. integers: products of 8-bit integers, with a larger `half_width`, not of float32.
    """
    query, gallery = _prepared(mixture, room, integers)
    buffer = np.empty((min(_QUERIES, len(mixture.query)), len(mixture.gallery)), dtype=np.float32)
    buffers: dict[str, Any] = {}
    for start in tqdm(
        range(0, len(mixture.query), _QUERIES),
        desc="re-ranking",
        unit="block",
        leave=False,
        mininterval=1.0,
        disable=len(mixture.query) * mixture.gallery.size < _BAR_FROM or None,
    ):
        half_widths = _squared_distances(query[start : start + _QUERIES], gallery, buffer, buffers)
        for i, half_width in enumerate(half_widths, start):
            yield i, _mixed_row(mixture, i, buffer[i - start], float(half_width))


def _prepared(mixture: Mixture, room: np.ndarray, integers: bool) -> tuple[Rows, list[Rows]]:
    """The queries and stretches of the gallery for the first pass, less the mean of all rows."""
    number, total = len(mixture.query), len(mixture.query) + len(mixture.gallery)
    sums = [part.sum(axis=0, dtype=np.float64) for part in (mixture.query, mixture.gallery)]
    centre = ((sums[0] + sums[1]) / total).astype(np.float32)

    def keep(rows: Rows, first: int) -> Rows:
        kept = room[first : first + len(rows.squared)]
        if rows.limbs is None:
            kept[:] = rows.values
        return dataclasses.replace(rows, values=kept)  # with limbs only their width is asked for

    query = keep(prepare(mixture.query, centre, side="query", integers=integers), 0)
    gallery = []
    for start in range(0, len(mixture.gallery), _GALLERY_ROWS):
        some = mixture.gallery[start : start + _GALLERY_ROWS]
        gallery.append(keep(prepare(some, centre, side="gallery", integers=integers), number + start))
    return query, gallery


def _squared_distances(query: Rows, gallery: list[Rows], out: np.ndarray, buffers: dict[str, Any]) -> np.ndarray:
    """Fill the first rows of `out` with squared distances; (b,) float64, by how much they may be off."""
    half_widths = np.zeros(len(query.squared))
    squared = query.squared.astype(np.float32)[:, None]
    first = 0
    for rows in gallery:
        found = approximate(query, rows, buffers)
        np.add(found.values, squared, out=out[: len(squared), first : first + len(rows.squared)])
        reach = (query.lengths + rows.lengths.max()) ** 2
        rounded = 1.01 * bounds.U * (query.squared + reach + found.half_width)
        half_widths = np.maximum(half_widths, found.half_width + rounded)
        first += len(rows.squared)
    return half_widths


def _mixed_row(mixture: Mixture, query: int, row: np.ndarray, half_width: float) -> Row:
    """Turn squared distances within `half_width` into re-ranked ones, in their place."""
    largest = float(mixture.largest[query]) or 1.0
    weight, power = mixture.weight, mixture.distance_power
    # d over the largest lies in 0 .. 1, and so does what stands for it; float32 has no inverse for the least numbers.
    row *= np.float32(min(1.0 / largest, _LARGEST_INVERSE))
    np.clip(row, 0.0, 1.0, out=row)
    if power == 2:
        row *= row
    row *= np.float32(weight)
    row += np.float32(1 - weight)
    shared = _shared(mixture.vectors, mixture.inverted, query)
    near = np.flatnonzero(shared)
    both = shared[near]
    row[near] = np.maximum(row[near] - (1 - weight) * both / (2 - both), 0.0)
    # The last term covers the roundings of the steps after it.
    off = min(1.01 * half_width / largest, 1.0) + 4 * bounds.U
    return Row(row, weight * power * off * (1 + off) + 8 * bounds.U, shared)


def _shared(vectors: csr_array, inverted: csc_array, row: int) -> np.ndarray:
    """`Row.shared`, through the inverted lists. The sum of the larger entries is 2 less it, since vectors sum to 1."""
    own = slice(vectors.indptr[row], vectors.indptr[row + 1])
    entries, weights = vectors.indices[own], vectors.data[own]
    first = inverted.indptr[entries]
    number = inverted.indptr[entries + 1] - first
    ends = np.cumsum(number)
    place = np.arange(ends[-1]) + np.repeat(first - ends + number, number)
    smaller = np.minimum(inverted.data[place], np.repeat(weights, number))
    return np.bincount(inverted.indices[place], smaller, minlength=inverted.shape[0])
