"""Answers and what they mean as plain values, for a terminal, a page or a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.errors import InputError
from reid.inference.calibration import Calibration
from reid.search.gallery.ranked_search import Answer


def plain_answers(
    answers: Sequence[Answer], calibration: Calibration | None, prior: float | None = None
) -> list[dict[str, Any]]:
    """The fields of each answer and `probability`, of being the same person, None where the model is not calibrated.

    prior: see `Calibration.probability`.
    """
    chances: list[float | None] = [None] * len(answers)
    if calibration:
        chances = calibration.probability([answer.distance for answer in answers], prior).tolist()
    return [{**vars(answer), "probability": chance} for answer, chance in zip(answers, chances, strict=True)]


def describe_calibration(calibration: Calibration | None, prior: float | None = None) -> dict[str, Any]:
    """`prior`, `calibrated_on` and `thresholds`: what is to be said about probabilities and distances.

    Raises InputError for a prior outside 0 .. 1, and for one without a calibration.
    """
    if calibration is None:
        if prior is not None:
            raise InputError("--prior needs a calibrated model: tools/calibrate.py")
        return {"prior": None, "calibrated_on": None, "thresholds": []}
    if prior is not None and not 0 < prior < 1:
        raise InputError(f"a prior is a share of pairs between 0 and 1, not {prior}")
    thresholds = [{"rate": t.rate, "distance": t.distance} for t in calibration.thresholds]
    used = calibration.curve.prior if prior is None else prior
    return {"prior": used, "calibrated_on": calibration.dataset, "thresholds": thresholds}
