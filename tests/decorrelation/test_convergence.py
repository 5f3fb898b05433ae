"""The stop of RRI on made-up sequences of S(W)."""

from __future__ import annotations

import pytest

from reid.decorrelation.convergence import converged


@pytest.mark.parametrize(
    ("history", "patience", "stops_after"),
    [
        ([0.10, 0.20, 0.30, 0.305, 0.5], 1, 4),  # the rise of 0.005 is none
        ([0.10, 0.20, 0.30, 0.305, 0.5, 0.51, 0.50], 2, 7),  # one flat round is forgiven
        ([0.10, 0.09, 0.30], 1, 2),  # a fall stops too
        ([0.10, 0.12, 0.14, 0.16], 1, None),  # rising all along
        ([0.10, 0.111, 0.122], 1, None),  # just above the tolerance each time
        ([0.5, 0.3, 0.45, 0.6], 2, 3),  # what counts is the best so far, not the round before
        ([0.2], 1, None),
        ([], 1, None),
    ],
)
def test_converged(history: list[float], patience: int, stops_after: int | None) -> None:
    stops = [n for n in range(len(history) + 1) if converged(history[:n], tolerance=0.01, patience=patience)]
    assert (stops[0] if stops else None) == stops_after
