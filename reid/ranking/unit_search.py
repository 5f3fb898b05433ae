"""Exact search among rows of length 1 for few queries, which reads as little of the rows as possible.

`reid.ranking.search.top_k` prepares every gallery row for many queries, which costs more than a few queries. Here every
distance is bounded from below, by the codes of a row or by one float32 product with it, and only rows whose bound is
not beyond the k-th distance are compared exactly. Rows of length 1 need no norms and no centering.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from reid.errors import InputError
from reid.ranking.distance import check_finite
from reid.ranking.exact import bounds
from reid.ranking.exact.distances import squared_distances, squared_lengths
from reid.ranking.exact.row_codes import CodedQueries, RowCodes, encode_queries, integer_products, lower_bounds
from reid.ranking.search import Neighbors
from reid.threads import thread_count

# Largest deviation of the squared length of a row from 1.
UNIT_SLACK = 1e-5
# Queries whose bounds for all rows are held at once.
_QUERY_BATCH = 16
_EXACT_ROWS = 4096
# Rows beyond the k with the smallest bounds that are compared for an upper bound of the k-th distance.
_SPARE = 64
# Coded rows that one thread compares at once; their bounds stay in its cache.
_CODED_ROWS = 8192
# Of that many rows one may remain after the codes; with more, float32 products take less time.
_ROWS_PER_CANDIDATE = 32
# Bounds of which only the smallest is considered in a first selection.
_BLOCK = 256

CheckRows = Callable[[np.ndarray], object]


def top_k_unit_rows(
    query: np.ndarray,
    parts: Sequence[np.ndarray],
    k: int,
    *,
    allowed: np.ndarray | None = None,
    codes: Sequence[RowCodes | None] = (),
    check: CheckRows = lambda indices: None,
) -> Neighbors:
    """Find the k nearest rows of every query, with the results of `reid.ranking.search.top_k`.

    Args:
        query: (Q, D) float32 rows of length 1.
        parts: (n_i, D) float32 matrices or memory maps that are concatenated. The squared lengths of their rows must be
            within `UNIT_SLACK` of 1, which is not checked.
        k: Neighbors per query, limited to the number of rows.
        allowed: (n,) bool, rows that may be found; None for all.
        codes: For every part the codes of its rows, which do not change the result, or None; empty for none.
        check: Called with (m,) int64 indices of rows before their values are used.

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
    indices, distances = np.empty((len(query), k), dtype=np.int64), np.empty((len(query), k))
    if not k:
        return Neighbors(indices, distances)
    usable = integer_products() is not None
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    gallery = _Gallery(parts, starts, [c if usable else None for c in codes] or [None] * len(parts), allowed, check)
    most = max(rows // _ROWS_PER_CANDIDATE, 2 * (k + _SPARE))
    buffer = np.empty((min(_QUERY_BATCH, len(query)), rows), dtype=np.float32)
    for begin in range(0, len(query), _QUERY_BATCH):
        batch = query[begin : begin + _QUERY_BATCH]
        lower = buffer[: len(batch)]
        gallery.bound_by_codes(batch, lower)
        gallery.bound_by_products(batch, lower, coded=False)
        for i in range(len(batch)):
            found = gallery.nearest(batch[i], lower[i], k, most)
            if found is None:
                gallery.bound_by_products(batch[i : i + 1], lower[i : i + 1], coded=True)
                found = gallery.nearest(batch[i], lower[i], k, rows)
            assert found is not None
            indices[begin + i], distances[begin + i] = found
    return Neighbors(indices, distances)


@dataclass(frozen=True)
class _Gallery:
    """The rows of a search: matrices that start at `starts`, some with codes."""

    parts: Sequence[np.ndarray]
    starts: np.ndarray
    codes: Sequence[RowCodes | None]
    allowed: np.ndarray | None
    check: CheckRows

    def bound_by_codes(self, query: np.ndarray, lower: np.ndarray) -> None:
        """Write lower bounds of the squared distances to all coded rows to `lower` (Q, n)."""
        parts = [(c, start) for c, start in zip(self.codes, self.starts.tolist(), strict=False) if c is not None]

        def bound(task: tuple[CodedQueries, RowCodes, int, int]) -> None:
            coded, codes, start, first = task
            stop = min(first + _CODED_ROWS, len(codes))
            out = np.empty((len(query), stop - first), dtype=np.float32)
            lower_bounds(coded, codes, first, out)
            lower[:, start + first : start + stop] = out

        threads = thread_count() if sum(len(codes) for codes, _ in parts) > _CODED_ROWS else 1
        with ThreadPoolExecutor(threads) if threads > 1 else contextlib.nullcontext() as pool:
            run = map if pool is None else pool.map
            coded = run(lambda part: encode_queries(query, part[0]), parts)
            tasks = [
                (queries, codes, start, first)
                for queries, (codes, start) in zip(coded, parts, strict=True)
                for first in range(0, len(codes), _CODED_ROWS)
            ]
            list(run(bound, tasks))

    def bound_by_products(self, query: np.ndarray, lower: np.ndarray, *, coded: bool) -> None:
        """Write lower bounds to all rows with codes, or to all without, to `lower` (Q, n)."""
        # The product, and both squared lengths, which are taken for 1.
        longest = (1 + UNIT_SLACK) ** 0.5
        error = bounds.float32_product(longest, longest, query.shape[1]) + 2 * UNIT_SLACK + 8 * bounds.U
        for part, codes, start in zip(self.parts, self.codes, self.starts.tolist(), strict=False):
            if (codes is not None) == coded:
                self.check(np.arange(start, start + len(part)))
                values = lower[:, start : start + len(part)]
                values[:] = query @ part.T
                np.multiply(values, np.float32(-2), out=values)
                values += np.float32(2 - error)

    def nearest(self, query: np.ndarray, lower: np.ndarray, k: int, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Compare a query with the rows that their bounds do not exclude; None if these are more than `most`."""
        count = len(lower)
        if self.allowed is not None:
            lower[~self.allowed] = np.inf
            count = int(np.count_nonzero(self.allowed))
        first = min(k + _SPARE, count)
        near = np.flatnonzero(lower <= _upper_limit(lower, first))
        if len(near) > most:
            return None
        kth = np.partition(self._distances(query, near), k - 1)[k - 1]
        candidates = np.flatnonzero(lower <= np.nextafter(np.float32(kth), np.float32(np.inf)))
        if len(candidates) > most:
            return None
        candidates = self._refine(query, candidates, float(kth))
        exact = self._distances(query, candidates)
        order = np.lexsort((candidates, exact))[:k]
        return candidates[order], exact[order]

    def _refine(self, query: np.ndarray, indices: np.ndarray, limit: float) -> np.ndarray:
        """Drop rows whose float32 distance exceeds `limit` by more than its rounding error."""
        # Relative: differences, squares and their sum have one sign and no cancellation.
        limit = limit * (1 + 2 * bounds.gamma(len(query) + 8)) + bounds.UNDERFLOW
        kept = [np.empty(0, dtype=np.int64)]
        for some in self._pieces(indices):
            difference = self._gather(some)
            difference -= query
            kept.append(some[np.einsum("ij,ij->i", difference, difference) <= limit])
        return np.concatenate(kept)

    def _distances(self, query: np.ndarray, indices: np.ndarray) -> np.ndarray:
        exact = [np.empty(0)]
        for some in self._pieces(indices):
            rows = self._gather(some)
            exact.append(squared_distances(np.broadcast_to(query, rows.shape), rows))
        return np.concatenate(exact)

    @staticmethod
    def _pieces(indices: np.ndarray) -> Iterator[np.ndarray]:
        return (indices[start : start + _EXACT_ROWS] for start in range(0, len(indices), _EXACT_ROWS))

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        self.check(indices)
        number = np.searchsorted(self.starts, indices, side="right") - 1
        rows = np.empty((len(indices), self.parts[0].shape[1]), dtype=np.float32)
        for part in np.unique(number).tolist():
            here = number == part
            rows[here] = self.parts[part][indices[here] - self.starts[part]]
        return rows


def _upper_limit(values: np.ndarray, k: int) -> np.float32:
    """Find a number that at least k values do not exceed, and if there are many, not many more."""
    if len(values) >= 4 * k * _BLOCK:
        # A third of the time of selecting among all of them. Infinite if the rows that are allowed are in few blocks.
        smallest = values[: len(values) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).min(axis=1)
        limit = np.partition(smallest, k - 1)[k - 1]
        if np.isfinite(limit):
            return np.float32(limit)
    return np.float32(np.partition(values, k - 1)[k - 1])
