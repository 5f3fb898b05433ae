"""Normalizations of weights, instead of the activations they compute."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from reid.model.normalization.batch_norms import batch_norms, normalized_convolutions
from reid.model.normalization.cosine import CosineConv2d


def weight_norms(backbone: nn.Module, network: str) -> str:
    """Use weight normalization, w = g v / ‖v‖ with a bias, in every batch-normalized convolution, in place.

    Salimans and Kingma 2016. Running statistics, scale and shift are folded into g and the bias, so the network is
    unchanged in evaluation. From scratch it starts with g = ‖v‖, without the paper's initialization from a
    batch.

    Args:
        backbone: Backbone to change.
        network: Its name in error messages.

    Returns:
        What this discards, for the log.

    Raises:
        InputError: If a batch normalization does not follow a convolution.
    """
    norms = batch_norms(backbone)
    for name, (_, convolution) in normalized_convolutions(backbone, network).items():
        parametrizations.weight_norm(convolution, dim=0)
        _fold(norms[name], convolution)
        backbone.set_submodule(name, nn.Identity())
    return (
        f"folds the pretrained statistics, scale and shift of {len(norms)} batch normalizations into the weights: "
        "unchanged in evaluation, trained without them"
    )


def cosine_convolutions(backbone: nn.Module, network: str) -> str:
    """Replace every batch-normalized convolution by `CosineConv2d` and its normalization by nothing, in place.

    Args:
        backbone: Backbone to change.
        network: Its name in error messages.

    Returns:
        What this discards, for the log.

    Raises:
        InputError: If a batch normalization does not follow a convolution.
    """
    convolutions = normalized_convolutions(backbone, network)
    for name, (convolution_name, convolution) in convolutions.items():
        backbone.set_submodule(convolution_name, CosineConv2d(convolution))
        backbone.set_submodule(name, nn.Identity())
    return (
        f"discards the pretrained statistics, scale and shift of {len(convolutions)} batch normalizations and starts "
        "anew; of the convolutions before them the direction is kept"
    )


@torch.no_grad()
def _fold(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift += convolution.bias * scale
    # Not into v, whose length must not be 0: a pretrained scale may be, as at the end of a residual block.
    convolution.get_parameter("parametrizations.weight.original0").mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(shift)
