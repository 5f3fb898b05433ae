"""Search results and the calibration behind them as plain values, for a terminal, a page or another program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.errors import InputError
from reid.inference.calibration import Calibration
from reid.search.gallery.search import SearchResult


def results_to_dicts(
    results: Sequence[SearchResult], calibration: Calibration | None, prior: float | None = None
) -> list[dict[str, Any]]:
    """Convert search results to dicts and add the probability of a match.

    Args:
        results: Results of one query, nearest first.
        calibration: The model's calibration, None if it has none.
        prior: Share of matching pairs, see `Calibration.probability`.

    Returns:
        The fields of each result and `probability`, which is None without a calibration.
    """
    probabilities: list[float | None] = [None] * len(results)
    if calibration:
        probabilities = calibration.probability([result.distance for result in results], prior).tolist()
    return [{**vars(result), "probability": p} for result, p in zip(results, probabilities, strict=True)]


def describe_calibration(calibration: Calibration | None, prior: float | None = None) -> dict[str, Any]:
    """Describe what distances and probabilities are based on.

    Args:
        calibration: The model's calibration, None if it has none.
        prior: Share of matching pairs in (0, 1); None uses the prior of the calibration.

    Returns:
        `prior`, `calibrated_on` (a dataset name) and `thresholds`, a list of `rate`, `distance` and the `probability`
        at that distance.

    Raises:
        InputError: If the prior is outside (0, 1) or given without a calibration.
    """
    if calibration is None:
        if prior is not None:
            raise InputError("--prior needs a calibrated model; run svdnet calibrate first")
        return {"prior": None, "calibrated_on": None, "thresholds": []}
    if prior is not None and not 0 < prior < 1:
        raise InputError(f"--prior {prior}: the share of matching pairs must be between 0 and 1")
    at_thresholds = calibration.probability([t.distance for t in calibration.thresholds], prior).tolist()
    thresholds = [
        {"rate": t.rate, "distance": t.distance, "probability": p}
        for t, p in zip(calibration.thresholds, at_thresholds, strict=True)
    ]
    used = calibration.curve.prior if prior is None else prior
    return {"prior": used, "calibrated_on": calibration.dataset, "thresholds": thresholds}
