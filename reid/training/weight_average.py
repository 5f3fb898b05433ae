"""The exponential moving average of the weights that a stage may end with.

Every stage starts an average from its own first weights. At the end of the stage the average becomes the network, which
is then evaluated, saved and decorrelated. So there is only one W to replace, and a frozen weight keeps every bit.

`torch.optim.swa_utils` updates the tensors. Its `AveragedModel` is not used: it copies the whole module, keeps a fixed
decay, and its checkpoints have other names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Average = dict[str, Tensor]


def start_average(model: nn.Module) -> Average:
    """Copy every floating point tensor of the state dict, running statistics included.

    Args:
        model: The network.

    Returns:
        The tensors by name.
    """
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def update_average(average: Average, model: nn.Module, decay: float, steps: int) -> None:
    """Update the average: average <- d · average + (1 - d) · weights, d = min(decay, (1 + steps) / (10 + steps)).

    The rising d is that of TensorFlow's ExponentialMovingAverage; it forgets the first weights sooner.

    Args:
        average: Updated in place.
        model: The network after the step.
        decay: Largest d, in [0, 1).
        steps: Steps of the optimizer in this stage, from 1.
    """
    d = min(decay, (1 + steps) / (10 + steps))
    weights = model.state_dict()
    # It computes x + (1 - d) · (y - x), which leaves a frozen x as it is, where d · x + (1 - d) · y would round.
    get_ema_multi_avg_fn(d)(list(average.values()), [weights[name] for name in average], None)


@torch.no_grad()
def load_average(model: nn.Module, average: Average) -> None:
    """Make the average the weights of the network; integer counters keep their values.

    Args:
        model: Changed in place.
        average: As `start_average` returned it.
    """
    weights = model.state_dict()
    for name, tensor in average.items():
        weights[name].copy_(tensor)
