"""Exact distances of many pairs of rows, gathered and summed by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from reid.ranking.exact.distances import squared_distances

# Numbers gathered at once from each side.
_MAX_ELEMENTS = 1 << 20


def pair_distances(first: np.ndarray, second: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Compute `squared_distances` of the pairs (first[rows[i]], second[columns[i]]).

    Uses as many threads as torch.

    Args:
        first: (A, D) floating.
        second: (B, D) floating.
        rows: (n,) int64 indices into `first`.
        columns: (n,) int64 indices into `second`.

    Returns:
        (n,) float64 squared distances.
    """
    distances = np.empty(len(rows))
    step = max(1, _MAX_ELEMENTS // max(1, first.shape[1]))

    def compute(start: int) -> None:
        part = slice(start, start + step)
        distances[part] = squared_distances(first[rows[part]], second[columns[part]])

    starts = range(0, len(rows), step)
    if len(starts) <= 1 or torch.get_num_threads() == 1:
        for start in starts:
            compute(start)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(compute, starts))
    return distances
