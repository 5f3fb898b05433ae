"""Calibration of distances: thresholds for false-match rates, and the probability that two images match."""

from __future__ import annotations

from reid.inference.calibration.fit import calibrate
from reid.inference.calibration.record import Calibration, CameraPair, Curve, Threshold

__all__ = ["Calibration", "CameraPair", "Curve", "Threshold", "calibrate"]
