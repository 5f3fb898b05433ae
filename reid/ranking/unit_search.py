"""The nearest of rows of length 1 to a few queries, exactly, by one float32 product over the rows as they lie.

`reid.ranking.search.top_k` prepares every gallery row for many queries, which costs more than asking a few. Here
nothing is prepared: rows of length 1 need no norms and no centering, at the price of a wider bound, which leaves some
more rows whose distances are computed in the fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid.errors import InputError
from reid.ranking.distance import refuse_broken
from reid.ranking.exact import bounds
from reid.ranking.exact.distances import squared_distances, squared_lengths
from reid.ranking.search import Neighbors

# How far the squared length of a row may be from 1.
UNIT_SLACK = 1e-5
# Queries whose products with all rows are held at once.
_TOGETHER = 16
_EXACT_ROWS = 4096


def nearest_of_units(
    query: np.ndarray, parts: Sequence[np.ndarray], k: int, *, allowed: np.ndarray | None = None
) -> Neighbors:
    """The k nearest rows of every query, equal to those of `top_k`.

    query: (Q, D). parts: matrices (n_i, D) one below the other, memory maps perhaps; all rows float32 with squared
    lengths within `UNIT_SLACK` of 1, which is not checked for `parts`. k: cut to what there is. allowed: (n,) bool,
    rows that may be found; None for all.
    Raises InputError for a k below 1, widths that differ and queries that are not finite or of length 1.
    """
    rows, width = sum(map(len, parts)), query.shape[1]
    if k < 1:
        raise InputError(f"the {k} nearest rows were asked for: at least 1")
    if any(part.shape[1] != width for part in parts):
        raise InputError(f"queries of {width} numbers for rows of {parts[0].shape[1]}: of different models?")
    query = np.ascontiguousarray(query, dtype=np.float32)
    refuse_broken(query, "query", np.arange(len(query)))
    if (abs(squared_lengths(query) - 1) > UNIT_SLACK).any():
        raise InputError("queries must be rows of length 1")
    open_rows = rows if allowed is None else int(np.count_nonzero(allowed))
    k = min(k, open_rows)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    indices, distances = np.empty((len(query), k), dtype=np.int64), np.empty((len(query), k))
    if not k:
        return Neighbors(indices, distances)
    # The product, and that |g|^2 is taken for 1.
    longest = (1 + UNIT_SLACK) ** 0.5
    half = bounds.float32_product(longest, longest, width) + UNIT_SLACK
    values = np.empty((min(_TOGETHER, len(query)), rows), dtype=np.float32)
    for begin in range(0, len(query), _TOGETHER):
        asked = query[begin : begin + _TOGETHER]
        found = values[: len(asked)]
        for part, start in zip(parts, starts[:-1].tolist(), strict=True):
            found[:, start : start + len(part)] = asked @ part.T
        np.multiply(found, np.float32(-2), out=found)
        if allowed is not None:
            found[:, ~allowed] = np.inf
        for i, row in enumerate(found):
            limit = float(np.partition(row, k - 1)[k - 1]) + 2 * half
            places = np.flatnonzero(row <= np.nextafter(np.float32(limit), np.float32(np.inf)))
            exact = np.empty(len(places))
            for first in range(0, len(places), _EXACT_ROWS):
                some = places[first : first + _EXACT_ROWS]
                held = _gather(parts, starts, some)
                exact[first : first + _EXACT_ROWS] = squared_distances(np.broadcast_to(asked[i], held.shape), held)
            nearest = np.lexsort((places, exact))[:k]
            indices[begin + i], distances[begin + i] = places[nearest], exact[nearest]
    return Neighbors(indices, distances)


def _gather(parts: Sequence[np.ndarray], starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    number = np.searchsorted(starts, places, side="right") - 1
    found = np.empty((len(places), parts[0].shape[1]), dtype=np.float32)
    for part in np.unique(number).tolist():
        here = number == part
        found[here] = parts[part][places[here] - starts[part]]
    return found
