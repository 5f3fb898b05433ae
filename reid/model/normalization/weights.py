"""Normalizations of the weights that make an activation, in place of one of the activation itself."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from reid.model.normalization.batch_norms import batch_norms, normalized_convolutions
from reid.model.normalization.cosine import CosineConv2d


def weight_norms(trunk: nn.Module, network: str) -> str:
    """w = g v / ‖v‖ with a bias (Salimans and Kingma 2016) for every convolution that was batch-normalized.

    Running statistics, scale and shift are folded into g, v and the bias first: evaluated, the network is what it was.
    Without weights it starts from g = ‖v‖, without the paper's initialization from a first batch.
    """
    norms = batch_norms(trunk)
    for name, (_, convolution) in normalized_convolutions(trunk, network).items():
        _fold(norms[name], convolution)
        parametrizations.weight_norm(convolution, dim=0)
        trunk.set_submodule(name, nn.Identity())
    return (
        f"folds the pretrained statistics, scale and shift of {len(norms)} batch normalizations into the weights and "
        "discards them as a fit of their own: evaluated as before, trained without them"
    )


def cosine_convolutions(trunk: nn.Module, network: str) -> str:
    """CosineConv2d for every convolution that was batch-normalized, and nothing for the normalization."""
    convolutions = normalized_convolutions(trunk, network)
    for name, (place, convolution) in convolutions.items():
        trunk.set_submodule(place, CosineConv2d(convolution))
        trunk.set_submodule(name, nn.Identity())
    return (
        f"discards the pretrained statistics, scale and shift of {len(convolutions)} batch normalizations and begins "
        "anew; of the convolutions before them the direction is kept"
    )


@torch.no_grad()
def _fold(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift += convolution.bias * scale
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(shift)
