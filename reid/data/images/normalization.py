"""From pixels to the numbers a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Values that are normalized together on a CPU: as float32 they fit into its second-level cache.
_TOGETHER = 2**17


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std per channel. images: (B, 3, H, W) in [0, 255]. Returns (B, 3, H, W) float32."""
    means = torch.tensor(mean, dtype=torch.float64)
    scale = 1 / torch.tensor(std, dtype=torch.float64)
    slope = (scale / 255).to(images.device, torch.float32).view(1, -1, 1, 1)
    offset = (-means * scale).to(images.device, torch.float32).view(1, -1, 1, 1)
    result = empty_float(images)
    together = max(1, _TOGETHER // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, len(images))
    for part, place in zip(images.split(together), result.split(together), strict=True):
        place.copy_(part).mul_(slope).add_(offset)
    return result


def empty_float(images: Tensor) -> Tensor:
    """Room for a float32 batch of the shape and on the device of `images`."""
    if images.device.type == "cpu":
        # NumPy asks the system for huge pages. With small ones the first touch of a batch takes as long as its values.
        return torch.from_numpy(np.empty(images.shape, dtype=np.float32))
    return torch.empty_like(images, dtype=torch.float32)
