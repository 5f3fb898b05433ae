"""From distances to decisions: thresholds for wanted false-match rates, and the probability that two are one person."""

from __future__ import annotations

from reid.inference.calibration.fit import calibrate
from reid.inference.calibration.record import Calibration, CameraPair, Curve, Threshold

__all__ = ["Calibration", "CameraPair", "Curve", "Threshold", "calibrate"]
