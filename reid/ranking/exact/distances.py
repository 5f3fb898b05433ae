"""Squared distances in float64, summed in one fixed order: the numbers that a ranking is the ranking of.

The order is ours, not a library's: the squared differences are padded with zeros to a power of two, then the second
half is added to the first until one number is left. Each step is one rounded addition, so every machine, block size
and number of threads gives the same bits, and equal rows give equal distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.ranking import arrays

# Bytes of float64 terms in the cache at once.
_CACHE_BYTES = 1 << 19


def squared_distances(first: Any, second: Any) -> Any:
    """|a - b|^2 of each pair of rows: (n, D) and (n, D), floating -> (n,) float64.

    Arrays give an array; tensors, which must be on one device, give a tensor on it with the same bits.
    """
    if arrays.is_tensor(first):
        terms = first.double() - second.double()
        return _folded(terms.mul_(terms))
    found, terms, step = _room(first)
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        part = terms[: len(first[rows])]
        part[:] = first[rows]
        part -= second[rows]
        part *= part
        found[rows] = _folded(part)
    return found


def squared_lengths(rows: Any) -> Any:
    """|a|^2 of each row: (n, D) floating -> (n,) float64, in the same order of summation."""
    if arrays.is_tensor(rows):
        terms = rows.double()
        return _folded(terms * terms)
    found, terms, step = _room(rows)
    for start in range(0, len(rows), step):
        part = terms[: len(rows[start : start + step])]
        part[:] = rows[start : start + step]
        part *= part
        found[start : start + step] = _folded(part)
    return found


def _room(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Memory for the result, for the terms of some rows, and the number of these rows."""
    step = max(1, _CACHE_BYTES // (8 * max(1, rows.shape[1])))
    return np.empty(len(rows)), np.empty((min(step, len(rows)), rows.shape[1])), step


def _folded(terms: Any) -> Any:
    """(n, D) -> (n,): halves added onto each other. Overwrites `terms`."""
    width = terms.shape[1]
    while width > 1:
        half = 1 << (width - 1).bit_length() - 1
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0] if width else terms.sum(1)
