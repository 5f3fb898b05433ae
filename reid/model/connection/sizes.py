"""Sizes of maps, kernels and their first weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from reid.errors import InputError

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """Rows and columns of one number or two."""
    return (value, value) if isinstance(value, int) else value


def check_channels(inputs: int, outputs: int) -> None:
    """Raises InputError for a layer without channels."""
    if inputs < 1 or outputs < 1:
        raise InputError(f"a layer from {inputs} to {outputs} channels connects nothing; give 1 or more of both")


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """⌊(size + 2 padding − kernel) / stride⌋ + 1, rows and columns.

    Raises InputError for a map smaller than a kernel, a kernel or stride below 1 and a padding below 0.
    """
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise InputError(f"a kernel {kernel} with stride {stride} and padding {padding} must be 1, 1 and 0 at least")
    if any(places + 2 * pad < wide for places, pad, wide in zip(size, padding, kernel, strict=True)):
        raise InputError(
            f"a map of {size[0]} x {size[1]} with padding {padding[0]}, {padding[1]} is smaller than its kernel of "
            f"{kernel[0]} x {kernel[1]}; give larger images or a smaller kernel"
        )
    rows, columns = (
        (places + 2 * pad - wide) // step + 1
        for places, pad, wide, step in zip(size, padding, kernel, stride, strict=True)
    )
    return rows, columns


def he_normal(shape: tuple[int, ...]) -> nn.Parameter:
    """A bank of kernels (..., O, kw, kh, C) from N(0, 2 / (kw kh C)), the initialization of He et al. 2015."""
    return nn.Parameter(torch.randn(shape) * math.sqrt(2 / math.prod(shape[-3:])))
