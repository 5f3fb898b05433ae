"""Normalization of pixels for the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Values normalized at a time on a CPU: as float32 they fit into its second-level cache.
_CHUNK = 2**17


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Compute (x / 255 - mean) / std per channel.

    Args:
        images: (B, 3, H, W) in [0, 255].
        mean: Mean of the RGB channels in [0, 1].
        std: Standard deviation of the RGB channels in [0, 1].

    Returns:
        (B, 3, H, W) float32 on the same device.
    """
    means = torch.tensor(mean, dtype=torch.float64)
    scale = 1 / torch.tensor(std, dtype=torch.float64)
    slope = (scale / 255).to(images.device, torch.float32).view(1, -1, 1, 1)
    offset = (-means * scale).to(images.device, torch.float32).view(1, -1, 1, 1)
    result = empty_float(images)
    size = max(1, _CHUNK // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, len(images))
    for chunk, output in zip(images.split(size), result.split(size), strict=True):
        output.copy_(chunk).mul_(slope).add_(offset)
    return result


def empty_float(images: Tensor) -> Tensor:
    """Allocate a float32 batch of the same shape and on the same device.

    Args:
        images: Batch of any dtype, whose shape and device are used.

    Returns:
        An uninitialized float32 tensor.
    """
    if images.device.type == "cpu":
        # NumPy requests huge pages. With small ones the first access to a batch takes as long as computing it.
        return torch.from_numpy(np.empty(images.shape, dtype=np.float32))
    return torch.empty_like(images, dtype=torch.float32)
