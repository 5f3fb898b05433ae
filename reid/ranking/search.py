"""The k nearest gallery rows of every query, exactly, with a gallery of any size read tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.ranking import arrays
from reid.ranking.exact.distances import squared_distances
from reid.ranking.exact.first_pass import approximate, prepare
from reid.ranking.exact.gallery_rows import EXACT_ROWS, Source, center_of, stretches
from reid.ranking.exact.ranks import check_sides, takes_integers
from reid.ranking.exact.shortlist import Shortlist

# Places kept beyond the k nearest, for what the bound leaves open.
_SPARE = 64


@dataclass(frozen=True)
class Neighbors:
    """indices: (Q, k) int64, gallery rows by distance and, where equal, by index. distances: (Q, k) float64, squared
    Euclidean; with `cosine` those of the rows divided by their length, 2 - 2 cos.
    """

    indices: np.ndarray
    distances: np.ndarray


def top_k(
    query: Any, gallery: Any, k: int, *, metric: str = "euclidean", block: int = 1024, first_pass: str = "auto"
) -> Neighbors:
    """The k nearest gallery rows of every query, by the exact distances of `reid.ranking.exact.distances`.

    query: (Q, D) floating, array or tensor. gallery: (G, D), an array, a memory map, `reid.io.shards.Shards` or a tensor
    on the device of `query`. block: queries at once. first_pass: as in `reid.ranking.evaluate`. Neither of these two
    changes the answer.
    Raises InputError for k outside 1 .. G, and as `evaluate` does for features.
    """
    check_sides(query, gallery, metric, block, first_pass)
    if not 1 <= k <= len(gallery):
        raise InputError(
            f"the {k} nearest rows of a gallery of {len(gallery)} were asked for: k must be 1 .. {len(gallery)}"
        )
    rows, source = Source(query, metric, "query").all(), Source(gallery, metric)
    if not len(rows):
        return Neighbors(np.empty((0, k), dtype=np.int64), np.empty((0, k)))
    integers = takes_integers(query, first_pass)
    centre = center_of(rows)
    asked = prepare(rows[:], centre, side="query", integers=integers)
    kept = Shortlist.empty(len(rows), k, min(len(gallery), k + _SPARE))
    buffers: dict[str, Any] = {}
    for first, stop in stretches(source, title="search"):
        tile = prepare(source[first:stop], centre, side="gallery", integers=integers, numbers=np.arange(first, stop))
        for begin in range(0, len(rows), block):
            part = slice(begin, min(begin + block, len(rows)))
            found = approximate(asked[part], tile, buffers)
            half = float(found.half_width.max())
            fresh = np.isinf(kept.cutoff[part]).all()
            if fresh and stop - first >= k:
                # An upper bound of the k-th distance, so that most of the tile need not be offered.
                kept.cutoff[part] = arrays.kth_smallest(found.values, k) + half
            limit = np.nextafter((kept.cutoff[part] + half).astype(np.float32), np.float32(np.inf))
            flat = arrays.flatnonzero(found.values <= arrays.like(limit, found.values)[:, None])
            values = arrays.host(found.values.reshape(-1)[flat]).astype(np.float64)
            row, place = np.divmod(arrays.host(flat), stop - first)
            kept.offer(begin + row, first + place, values - half, half)
    kept.close()
    return _select(rows, source, kept, k)


def _select(rows: Source, source: Source, kept: Shortlist, k: int) -> Neighbors:
    """The k nearest of what was kept, by exact distances."""
    indices, distances = np.empty((len(rows), k), dtype=np.int64), np.empty((len(rows), k))
    row, place = kept.pairs()
    exact = np.empty(len(row))
    for start in range(0, len(row), EXACT_ROWS):
        part = slice(start, start + EXACT_ROWS)
        exact[part] = arrays.host(squared_distances(rows[row[part]], source[place[part]]))
    order = np.lexsort((place, exact, row))
    first = np.searchsorted(row, np.flatnonzero(~kept.crowded))
    chosen = order[first[:, None] + np.arange(k)]
    indices[~kept.crowded], distances[~kept.crowded] = place[chosen], exact[chosen]
    for crowded in np.flatnonzero(kept.crowded).tolist():
        indices[crowded], distances[crowded] = _plainly(rows, source, crowded, k)
    return Neighbors(indices, distances)


def _plainly(rows: Source, source: Source, row: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One row against the whole gallery, for where too much is equal to keep a short list."""
    places, exact = np.empty(0, dtype=np.int64), np.empty(0)
    for first in range(0, len(source), EXACT_ROWS):
        part = source[first : first + EXACT_ROWS]
        one = rows[np.full(len(part), row)]
        places = np.concatenate([places, np.arange(first, first + len(part))])
        exact = np.concatenate([exact, arrays.host(squared_distances(one, part))])
        nearest = np.lexsort((places, exact))[:k]
        places, exact = places[nearest], exact[nearest]
    return places, exact
