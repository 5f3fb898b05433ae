"""A step of several processes, each with a share of the batch, that is the step of one with the whole.

Every process gathers features and logits of all shares, in the order of the batch, and computes the objective of the
whole batch. So losses over pairs see every pair, uneven shares need no weights, centers move alike, and each process
knows the same loss: what follows from it, to stop or to skip, is decided alike everywhere without asking.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid.distributed import get_rank, get_world_size
from reid.errors import InputError
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.training.state import Batches
from reid.training.step import outputs

# Running statistics have no say in a training step; those of the first process are taken at the end of each epoch.
# PyTorch is about to rename the option.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)


class WholeBatch(nn.Module):
    """The terms of the objective on whole batches, of which this process holds a share.

    shares: images of each process.
    """

    def __init__(self, model: ReidNetwork, objective: Objective, shares: Sequence[int]) -> None:
        super().__init__()
        self.model, self.objective, self.shares = model, objective, tuple(shares)
        self.images = sum(shares)

    def forward(self, images: Tensor, labels: Tensor, dtype: torch.dtype | None, progress: float) -> dict[str, Tensor]:
        """See `reid.training.step.loss_terms`."""
        embedding, logits = outputs(self.model, images, labels, dtype)
        # One by one, so that what the objective leaves alone gets no gradient rather than one of zeros, as which
        # momentum and weight decay would move it.
        logits, input, output, labels = (
            gather_rows(rows, self.shares) for rows in (logits, embedding.input, embedding.output, labels)
        )
        vectors = self.model.eigenlayer.vectors
        return self.objective(logits, labels, input=input, output=output, vectors=vectors, progress=progress)


def gather_rows(rows: Tensor, shares: Sequence[int]) -> Tensor:
    """The rows of all processes below each other, in their order; shares: how many each has.

    Differentiable where every process computes the same loss from them: a row's gradient is then the sum of what the
    processes know of it, and DistributedDataParallel, which takes the mean, makes that loss's gradient of it.
    """
    gathered: Tensor = _Gathered.apply(rows, tuple(shares))
    return gathered


class _Gathered(torch.autograd.Function):
    """torch.distributed has one for rows of one number, which asks the others for gradients that are known here."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: tuple[int, ...]) -> Tensor:
        ctx.first, ctx.last, ctx.world = sum(shares[: get_rank()]), sum(shares[: get_rank() + 1]), len(shares)
        padded = rows.new_zeros((max(shares), *rows.shape[1:]))
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(every, padded)
        return torch.cat([part[:count] for part, count in zip(every, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.first : ctx.last] * ctx.world, None


def in_parallel(model: ReidNetwork, objective: Objective, loader: Batches) -> DistributedDataParallel | None:
    """What a stage's steps go through where several processes train, None where one does.

    To be made anew for each stage, once its parameters are frozen and released: which gradients are exchanged is
    settled here. The first process's tensors replace those of the others.
    """
    if get_world_size() == 1:
        return None
    whole = WholeBatch(model, objective, loader.shard_sizes(get_world_size()))
    device = model.eigenlayer.vectors.device
    options: dict[str, Any] = {SYNC_BUFFERS: False}
    return DistributedDataParallel(
        whole,
        device_ids=[device] if device.type == "cuda" else None,
        **options,
        # Without the identity loss nothing asks for the classifier.
        find_unused_parameters=not objective.weights.identity,
    )


def synchronized(model: ReidNetwork) -> ReidNetwork:
    """The network with SyncBatchNorm in place of BatchNorm where several processes train."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if get_world_size() > 1 else model


def check_parallel(model: ReidNetwork, loader: Batches, norm_statistics: str) -> None:
    """Find batches that the processes cannot share, and BatchNorm that cannot, before training. Raises InputError.

    model: on the device where it will train.
    """
    if get_world_size() == 1:
        return
    smallest = min(loader.shard_sizes(get_world_size()))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms or norm_statistics == "frozen":
        return
    together = [isinstance(module, nn.SyncBatchNorm) for module in norms]
    if any(together) and model.eigenlayer.vectors.device.type != "cuda":
        raise InputError(
            f"PyTorch's SyncBatchNorm shares the statistics of {get_world_size()} processes on GPUs only: set SOLVER.SYNC_BN "
            "False and MODEL.NORM.NAME batch, or SOLVER.NORM_STATISTICS frozen"
        )
    if not all(together) and smallest < 2:
        raise InputError(
            f"BatchNorm has no statistics of {smallest} image, the share of a process: raise SOLVER.BATCH_SIZE, start "
            f"fewer than {get_world_size()} processes, or set SOLVER.SYNC_BN True"
        )
