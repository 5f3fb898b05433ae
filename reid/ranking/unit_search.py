"""Exact search among rows of length 1 for few queries, by one float32 product over the rows.

`reid.ranking.search.top_k` prepares every gallery row for many queries, which costs more than a few queries. Here
nothing is prepared: rows of length 1 need no norms and no centering. The price is a wider bound, which leaves more rows
whose distances are computed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reid.errors import InputError
from reid.ranking.distance import check_finite
from reid.ranking.exact import bounds
from reid.ranking.exact.distances import squared_distances, squared_lengths
from reid.ranking.search import Neighbors

# Largest deviation of the squared length of a row from 1.
UNIT_SLACK = 1e-5
# Queries whose products with all rows are held at once.
_QUERY_BATCH = 16
_EXACT_ROWS = 4096


def top_k_unit_rows(
    query: np.ndarray, parts: Sequence[np.ndarray], k: int, *, allowed: np.ndarray | None = None
) -> Neighbors:
    """Find the k nearest rows of every query, with the results of `reid.ranking.search.top_k`.

    Args:
        query: (Q, D) float32 rows of length 1.
        parts: (n_i, D) float32 matrices or memory maps that are concatenated. The squared lengths of their rows must be
            within `UNIT_SLACK` of 1, which is not checked.
        k: Neighbors per query, limited to the number of rows.
        allowed: (n,) bool, rows that may be found; None for all.

    Returns:
        Indices and distances of the k nearest rows per query.

    Raises:
        InputError: If k is below 1, the widths differ, or queries are not finite or not of length 1.
    """
    rows, width = sum(map(len, parts)), query.shape[1]
    if k < 1:
        raise InputError(f"k {k}: must be at least 1")
    if any(part.shape[1] != width for part in parts):
        raise InputError(
            f"queries of {width} dimensions and rows of {parts[0].shape[1]}; were they extracted by different models?"
        )
    query = np.ascontiguousarray(query, dtype=np.float32)
    check_finite(query, "query", np.arange(len(query)))
    if (abs(squared_lengths(query) - 1) > UNIT_SLACK).any():
        raise InputError("queries must be rows of length 1")
    k = min(k, rows if allowed is None else int(np.count_nonzero(allowed)))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    indices, distances = np.empty((len(query), k), dtype=np.int64), np.empty((len(query), k))
    if not k:
        return Neighbors(indices, distances)
    # Covers the product, and |g|^2 replaced by 1.
    longest = (1 + UNIT_SLACK) ** 0.5
    half = bounds.float32_product(longest, longest, width) + UNIT_SLACK
    buffer = np.empty((min(_QUERY_BATCH, len(query)), rows), dtype=np.float32)
    for begin in range(0, len(query), _QUERY_BATCH):
        batch = query[begin : begin + _QUERY_BATCH]
        values = buffer[: len(batch)]
        for part, start in zip(parts, starts[:-1].tolist(), strict=True):
            values[:, start : start + len(part)] = batch @ part.T
        np.multiply(values, np.float32(-2), out=values)
        if allowed is not None:
            values[:, ~allowed] = np.inf
        for i, row in enumerate(values):
            limit = float(np.partition(row, k - 1)[k - 1]) + 2 * half
            candidates = np.flatnonzero(row <= np.nextafter(np.float32(limit), np.float32(np.inf)))
            exact = np.empty(len(candidates))
            for first in range(0, len(candidates), _EXACT_ROWS):
                some = _gather(parts, starts, candidates[first : first + _EXACT_ROWS])
                exact[first : first + _EXACT_ROWS] = squared_distances(np.broadcast_to(batch[i], some.shape), some)
            nearest = np.lexsort((candidates, exact))[:k]
            indices[begin + i], distances[begin + i] = candidates[nearest], exact[nearest]
    return Neighbors(indices, distances)


def _gather(parts: Sequence[np.ndarray], starts: np.ndarray, indices: np.ndarray) -> np.ndarray:
    number = np.searchsorted(starts, indices, side="right") - 1
    rows = np.empty((len(indices), parts[0].shape[1]), dtype=np.float32)
    for part in np.unique(number).tolist():
        here = number == part
        rows[here] = parts[part][indices[here] - starts[part]]
    return rows
