"""Sizes of maps and kernels, and the initialization of kernels."""

from __future__ import annotations

import math

import torch
from torch import nn

from reid.errors import InputError

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """Expand one number to rows and columns.

    Args:
        value: One number, or rows and columns.

    Returns:
        Rows and columns.
    """
    return (value, value) if isinstance(value, int) else value


def check_channels(inputs: int, outputs: int) -> None:
    """Check that a layer has channels.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.

    Raises:
        InputError: If either is below 1.
    """
    if inputs < 1 or outputs < 1:
        raise InputError(f"in_channels and out_channels must be at least 1, got {inputs} and {outputs}")


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Compute ⌊(size + 2 padding - kernel) / stride⌋ + 1.

    Args:
        size: Rows and columns of the input.
        kernel: Rows and columns of the kernel.
        stride: Rows and columns.
        padding: Rows and columns.

    Returns:
        Rows and columns of the output.

    Raises:
        InputError: If the padded map is smaller than the kernel, the kernel or stride is below 1, or the padding is
            below 0.
    """
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise InputError(f"kernel {kernel}, stride {stride} and padding {padding} must be at least 1, 1 and 0")
    if any(length + 2 * pad < wide for length, pad, wide in zip(size, padding, kernel, strict=True)):
        raise InputError(
            f"a map of {size[0]} x {size[1]} with padding {padding[0]}, {padding[1]} is smaller than its kernel of "
            f"{kernel[0]} x {kernel[1]}; use larger images or a smaller kernel"
        )
    rows, columns = (
        (length + 2 * pad - wide) // step + 1
        for length, pad, wide, step in zip(size, padding, kernel, stride, strict=True)
    )
    return rows, columns


def he_normal(shape: tuple[int, ...]) -> nn.Parameter:
    """Sample a bank of kernels from N(0, 2 / (kw kh C)), the initialization of He et al. 2015.

    Args:
        shape: (..., O, kw, kh, C).

    Returns:
        The parameter, float32.
    """
    return nn.Parameter(torch.randn(shape) * math.sqrt(2 / math.prod(shape[-3:])))
