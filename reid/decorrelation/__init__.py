"""Correlation of a weight matrix and its replacement by an orthogonal one, in float64; independent of any network."""

from reid.decorrelation.correlation import (
    condition_number,
    correlation_metric,
    gaussian_correlation,
    severest_pair,
    spectrum,
)
from reid.decorrelation.replace import ORDERS, VARIANTS, Replacement, replace_weight, transform_classifier

__all__ = [
    "ORDERS",
    "VARIANTS",
    "Replacement",
    "condition_number",
    "correlation_metric",
    "gaussian_correlation",
    "replace_weight",
    "severest_pair",
    "spectrum",
    "transform_classifier",
]
