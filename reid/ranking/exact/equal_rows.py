"""Which rows of a matrix are equal."""

from __future__ import annotations

import numpy as np


def equal_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find equal rows; -0 equals 0.

    Args:
        rows: (T, D) floating, D > 0.

    Returns:
        (U,) int64, the first of each distinct row, and (T,) int64, the distinct row that each row equals. Without equal
        rows both are 0 .. T - 1.
    """
    wide = np.ascontiguousarray(rows + rows.dtype.type(0))  # turns -0 into 0
    keys = wide.view(np.dtype((np.void, wide.itemsize * wide.shape[1])))[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(wide):
        return np.arange(len(wide)), np.arange(len(wide))
    return first, inverse
