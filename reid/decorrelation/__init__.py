"""Correlation of a weight matrix and its replacement by an orthogonal one, in float64; independent of any network.

`decorrelate_`, `restrained` and `RRI` are SVDNet in a training loop of your own.
"""

from reid.decorrelation.correlation import (
    condition_number,
    correlation_metric,
    gaussian_correlation,
    severest_pair,
    smallest_singular_value,
    spectrum,
    vector_lengths,
)
from reid.decorrelation.loop import RRI, Decorrelation, RoundResult, decorrelate_, restrained
from reid.decorrelation.replace import ORDERS, VARIANTS, Replacement, replace_weight, transform_classifier

__all__ = [
    "ORDERS",
    "RRI",
    "VARIANTS",
    "Decorrelation",
    "Replacement",
    "RoundResult",
    "condition_number",
    "correlation_metric",
    "decorrelate_",
    "gaussian_correlation",
    "replace_weight",
    "restrained",
    "severest_pair",
    "smallest_singular_value",
    "spectrum",
    "transform_classifier",
    "vector_lengths",
]
