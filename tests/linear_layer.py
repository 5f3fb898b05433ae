"""A float64 linear layer of given numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """weight: (outputs, inputs), bias: (outputs,)."""
    layer = nn.Linear(*weight.shape[::-1]).double()
    layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    return layer
