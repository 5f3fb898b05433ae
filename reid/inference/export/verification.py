"""Comparison of an exported network with the original in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from reid.errors import InputError
from reid.inference.export.interface import ExportInterface

TOLERANCES = {"onnx": 1e-4, "torch": 1e-5}
"""The largest accepted `max_relative_difference` to PyTorch, by format."""

Runner = Callable[[Tensor], np.ndarray]
"""An exported network: a batch of images to (B, D) float32 embeddings."""


def check_output(
    run: Runner, pixels: Tensor, reference: np.ndarray, interface: ExportInterface, *, tolerance: float
) -> float:
    """Run an exported network at several batch sizes and compare its output with a reference.

    Args:
        run: Function that runs the exported network on a batch.
        pixels: (N, 3, H, W) uint8 RGB; fed in batches of 1, 2 and then 17.
        reference: (N, D) float32, the output of PyTorch.
        interface: How pixels become the inputs of the exported network.
        tolerance: Largest accepted difference.

    Returns:
        The largest relative difference, see `max_relative_difference`.

    Raises:
        InputError: If the difference exceeds `tolerance` or is NaN.
    """
    parts = pixels.tensor_split([1, 3, *range(20, len(pixels), 17)])  # of 1, 2, and then 17 images
    output = np.concatenate([run(interface.prepare_images(part)) for part in parts if len(part)])
    difference = max_relative_difference(output, reference)
    if not difference <= tolerance:
        raise InputError(
            f"the exported network differs from PyTorch by {difference:.1e} of a feature's length on {len(pixels)} "
            f"images, more than {tolerance:.0e}: nothing was written"
        )
    return difference


def max_relative_difference(output: np.ndarray, reference: np.ndarray) -> float:
    """Compute the largest absolute difference of a component, relative to the norm of its reference row.

    Args:
        output: (N, D) floating.
        reference: (N, D) floating; rows of zeros are treated as if of unit norm.

    Returns:
        The difference, or NaN if either array holds NaN.

    Raises:
        InputError: If the shapes differ.
    """
    if output.shape != reference.shape:
        raise InputError(f"the exported network returns shape {output.shape}, PyTorch {reference.shape}")
    norms = np.linalg.norm(reference.astype(np.float64), axis=1, keepdims=True)
    return float((np.abs(output - reference) / np.where(norms > 0, norms, 1)).max())
