"""Correlation of a weight matrix and its replacement by an orthogonal one: float64 algebra that knows no network."""

from reid.decorrelation.correlation import (
    condition_number,
    correlation_metric,
    gaussian_correlation,
    severest_pair,
    spectrum,
)
from reid.decorrelation.replace import ORDERS, VARIANTS, Replacement, classifier_turned, replace_weight

__all__ = [
    "ORDERS",
    "VARIANTS",
    "Replacement",
    "classifier_turned",
    "condition_number",
    "correlation_metric",
    "gaussian_correlation",
    "replace_weight",
    "severest_pair",
    "spectrum",
]
