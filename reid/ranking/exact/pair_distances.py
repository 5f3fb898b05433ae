"""Exact distances of many pairs of rows, gathered and summed by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from reid.ranking.exact.distances import squared_distances

# Numbers gathered at once from each side.
_NUMBERS = 1 << 20


def paired_distances(first: np.ndarray, second: np.ndarray, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) float64: `squared_distances` of first[rows[i]] and second[places[i]], by as many threads as torch has.

    first: (A, D), second: (B, D). rows, places: (n,) int64.
    """
    found = np.empty(len(rows))
    step = max(1, _NUMBERS // max(1, first.shape[1]))

    def compute(start: int) -> None:
        some = slice(start, start + step)
        found[some] = squared_distances(first[rows[some]], second[places[some]])

    starts = range(0, len(rows), step)
    if len(starts) <= 1 or torch.get_num_threads() == 1:
        for start in starts:
            compute(start)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(compute, starts))
    return found
