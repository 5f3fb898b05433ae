"""What the negatives of the next epoch are mined by: the descriptors of the training set as they are now."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from reid.distributed import broadcast, gather, get_rank, get_world_size, is_main_process
from reid.training.epoch import evaluation_mode
from reid.training.state import Batches, TrainState
from reid.training.step import autocast

ALL = 2**62


@torch.no_grad()
def describe_all(state: TrainState, loader: Batches, dtype: torch.dtype | None) -> Tensor:
    """(N, D) float32 on the CPU: the feature that the objective compares, at unit length, of every training image.

    In evaluation mode and without augmentation; the model's mode is restored. Several processes describe a part each
    and all get the whole.
    """
    parts = []
    batches = loader.sample(ALL, 0, rank=get_rank(), world=get_world_size())
    with evaluation_mode(state.model):
        for images, _ in tqdm(
            batches, desc="mining", unit="batch", leave=False, mininterval=1.0, disable=not is_main_process()
        ):
            with autocast(images.device, dtype):
                embedding = state.model.embed(images)
            compared = getattr(embedding, state.objective.weights.feature)
            parts.append(functional.normalize(compared.float(), dim=1).cpu())
    return torch.cat(broadcast([part for own in gather(parts) for part in own]))
