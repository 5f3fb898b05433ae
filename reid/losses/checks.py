"""Checks of what a loss is called with, by types and shapes only, so that a GPU need not be waited for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reid.errors import InputError


def check_batch(features: Any, labels: Any, name: str = "features") -> None:
    """Check that features and labels are those of one batch.

    Args:
        features: Must be a (B, D) floating-point tensor.
        labels: Must be a (B,) integer tensor.
        name: Name of the features in error messages.

    Raises:
        InputError: If they are not.
    """
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise InputError(f"{name} must be a floating-point (B, D) tensor, not {_described(features)}")
    integer = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not integer or labels.shape != features.shape[:1]:
        raise InputError(f"labels must be an integer tensor of {len(features)} values, not {_described(labels)}")


def _described(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
