"""Squared distances in float64, summed in one fixed order: the numbers that define an exact ranking.

The squared differences are padded with zeros to a power of two, then the second half is added to the first until one
number is left. Each step is one rounded addition, so every machine, block size and number of threads gives the same
bits, and equal rows give equal distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reid.ranking import arrays

# Bytes of float64 terms in the cache at once.
_CACHE_BYTES = 1 << 19


def squared_distances(first: Any, second: Any) -> Any:
    """Compute |a - b|^2 of each pair of rows in the fixed order of summation.

    Args:
        first: (n, D) floating array or tensor.
        second: (n, D) floating, a tensor on the same device if `first` is one.

    Returns:
        (n,) float64: an array for arrays; for tensors a tensor on their device, with the same bits.
    """
    if arrays.is_tensor(first):
        terms = first.double() - second.double()
        return _fold(terms.mul_(terms))
    result, terms, step = _buffers(first)
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        part = terms[: len(first[rows])]
        part[:] = first[rows]
        part -= second[rows]
        part *= part
        result[rows] = _fold(part)
    return result


def squared_lengths(rows: Any) -> Any:
    """Compute |a|^2 of each row in the fixed order of summation.

    Args:
        rows: (n, D) floating array or tensor.

    Returns:
        (n,) float64 array or tensor.
    """
    if arrays.is_tensor(rows):
        terms = rows.double()
        return _fold(terms * terms)
    result, terms, step = _buffers(rows)
    for start in range(0, len(rows), step):
        part = terms[: len(rows[start : start + step])]
        part[:] = rows[start : start + step]
        part *= part
        result[start : start + step] = _fold(part)
    return result


def _buffers(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Allocate the result and the terms of one step; returns both and the number of rows per step."""
    step = max(1, _CACHE_BYTES // (8 * max(1, rows.shape[1])))
    return np.empty(len(rows)), np.empty((min(step, len(rows)), rows.shape[1])), step


def _fold(terms: Any) -> Any:
    """Sum (n, D) to (n,) by adding halves onto each other; overwrites `terms`."""
    width = terms.shape[1]
    while width > 1:
        half = 1 << (width - 1).bit_length() - 1
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0] if width else terms.sum(1)
