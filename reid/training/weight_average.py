"""The exponential moving average of the weights, with which a stage may end.

Every stage starts one from its own first weights, and at its end the average becomes the network: that is what is
evaluated, saved and decorrelated next. So there is one W to be replaced, never a second one that stands for other
directions, and a frozen weight stays what it was to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Average = dict[str, Tensor]


def start_average(model: nn.Module) -> Average:
    """A copy of every floating tensor of the state dict, running statistics included."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def follow(average: Average, model: nn.Module, decay: float, steps: int) -> None:
    """average <- d · average + (1 - d) · weights, d = min(decay, (1 + steps) / (10 + steps)), after step `steps` >= 1.

    The rising d is that of TensorFlow's ExponentialMovingAverage; it lets go of the first weights sooner.
    """
    d = min(decay, (1 + steps) / (10 + steps))
    weights = model.state_dict()
    # x + w · (y - x) leaves a frozen x as it is, where d · x + (1 - d) · y would round.
    torch._foreach_lerp_(list(average.values()), [weights[name] for name in average], 1 - d)


@torch.no_grad()
def adopt(model: nn.Module, average: Average) -> None:
    """Make the average the network's weights; counters keep their own."""
    weights = model.state_dict()
    for name, tensor in average.items():
        weights[name].copy_(tensor)
