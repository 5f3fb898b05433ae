"""When the Restraint-and-Relaxation Iteration has converged."""

from __future__ import annotations

from collections.abc import Sequence


def converged(history: Sequence[float], *, tolerance: float, patience: int) -> bool:
    """Tell whether S(W) has stopped rising (Sun et al. 2017, Section 3.2: RRI ends when S(W) becomes stable).

    Args:
        history: S(W) after each Relaxation, in order, each in (0, 1].
        tolerance: Minimum rise to count as progress.
        patience: Number of rounds without a rise.

    Returns:
        True when the best of the last `patience` values exceeds the best one before them by `tolerance` or less; False
        with `patience` values or fewer.
    """
    if len(history) <= patience:
        return False
    return max(history[-patience:]) <= max(history[:-patience]) + tolerance
