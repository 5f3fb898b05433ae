"""Descriptors of the training set, by which the hard negatives of the next epoch are mined."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reid.data.loading.loaders import TrainLoader
from reid.distributed import broadcast, gather, get_rank, get_world_size
from reid.training.epoch import evaluation_mode
from reid.training.state import TrainState
from reid.training.step import autocast

ALL_IMAGES = 2**62


@torch.no_grad()
def describe_all(state: TrainState, loader: TrainLoader, dtype: torch.dtype | None) -> Tensor:
    """Describe every training image by the feature that the objective compares.

    The network runs in evaluation mode, without augmentation, and its mode is restored. Each of several processes
    describes a part of the images.

    Args:
        state: Its model and objective.
        loader: The training data.
        dtype: Autocast type of the backbone, None for float32.

    Returns:
        (N, D) float32 rows of length 1 on the CPU, the same on every process.
    """
    parts = []
    batches = loader.sample(ALL_IMAGES, 0, rank=get_rank(), world=get_world_size())
    with evaluation_mode(state.model):
        for images, _ in batches:
            with autocast(images.device, dtype):
                embedding = state.model.embed(images)
            compared = getattr(embedding, state.objective.weights.feature)
            parts.append(functional.normalize(compared.float(), dim=1).cpu())
    return torch.cat(broadcast([part for own in gather(parts) for part in own]))
