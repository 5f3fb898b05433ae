"""Training by several processes: each has a share of every batch, and the step is that of the whole batch.

Every process gathers features and logits of all shares, in the order of the batch, and computes the objective of the
whole batch. So losses over pairs see every pair, uneven shares need no weights, centers move alike, and every process
knows the same loss: all of them stop, or skip a batch, without asking each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid.data.loading.loaders import TrainLoader
from reid.distributed import barrier, broadcast, get_rank, get_world_size
from reid.errors import InputError
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.model.normalization import synchronize_batch_norms
from reid.records import Split
from reid.training.run_folder import changes
from reid.training.seeding import seed_from
from reid.training.step import loss_terms

# A training step does not use running statistics; those of the first process are copied at the end of each epoch.
# PyTorch is about to rename the option.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)


class WholeBatch(nn.Module):
    """The terms of the objective on whole batches, of which this process holds a share.

    Args:
        model: The network.
        objective: What is minimized.
        shares: Number of images of each process.
    """

    def __init__(self, model: ReidNetwork, objective: Objective, shares: Sequence[int]) -> None:
        super().__init__()
        self.model, self.objective, self.shares = model, objective, tuple(shares)
        self.images = sum(shares)

    def forward(self, images: Tensor, labels: Tensor, dtype: torch.dtype | None, progress: float) -> dict[str, Tensor]:
        """Compute the terms of the whole batch.

        Args:
            images: (b, 3, H, W) float32, the share of this process.
            labels: (b,) int64.
            dtype: Autocast type of the backbone, None for float32.
            progress: Finished part of the stage, in [0, 1].

        Returns:
            See `reid.training.step.loss_terms`.
        """

        def gather(rows: Tensor) -> Tensor:
            return gather_rows(rows, self.shares)

        return loss_terms(
            self.model, self.objective, images, labels, dtype=dtype, progress=progress, gather=gather
        )  # fmt: skip


def gather_rows(rows: Tensor, shares: Sequence[int]) -> Tensor:
    """Gather the rows of all processes, in their order.

    Differentiable where every process computes the same loss from them: the gradient of a row is then the sum over the
    processes, and DistributedDataParallel, which takes the mean, turns it into the gradient of that loss.

    Args:
        rows: (b, ...) of this process.
        shares: Number of rows of each process.

    Returns:
        (B, ...) rows.
    """
    gathered: Tensor = _Gathered.apply(rows, tuple(shares))
    return gathered


class _Gathered(torch.autograd.Function):
    """Differentiable all-gather for uneven shares; no gradients are exchanged, since every process computes all."""

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


def parallelize(model: ReidNetwork, objective: Objective, loader: TrainLoader) -> DistributedDataParallel | None:
    """Wrap the network for the steps of a stage by several processes.

    Call it for each stage after freezing, since it decides here which gradients are exchanged. The tensors of the first
    process replace those of the others.

    Args:
        model: The network.
        objective: What is minimized.
        loader: Says how a batch is split.

    Returns:
        A `WholeBatch` inside DistributedDataParallel, or None for a single process.
    """
    if get_world_size() == 1:
        return None
    whole = WholeBatch(model, objective, loader.shard_sizes(get_world_size()))
    device = model.eigenlayer.vectors.device
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return DistributedDataParallel(
        whole,
        device_ids=[device] if device.type == "cuda" else None,
        **options,
        # Without the identity loss the classifier is not used.
        find_unused_parameters=not objective.weights.identity,
    )


def synchronize_norms(model: ReidNetwork) -> ReidNetwork:
    """Replace BatchNorm by SyncBatchNorm where several processes train.

    Args:
        model: Changed in place.

    Returns:
        The network.
    """
    if get_world_size() > 1:
        synchronize_batch_norms(model)
    return model


def check_parallel(model: ReidNetwork, loader: TrainLoader, norm_statistics: str) -> None:
    """Check before training that several processes can share the batches and their BatchNorm.

    Args:
        model: The network, on the device where it will train.
        loader: Says how a batch is split.
        norm_statistics: "running" or "frozen".

    Raises:
        InputError: If they cannot.
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
            f"PyTorch's SyncBatchNorm shares the statistics of {get_world_size()} processes on GPUs only; set "
            "SOLVER.SYNC_BN False and MODEL.NORM.NAME batch, or SOLVER.NORM_STATISTICS frozen"
        )
    if not all(together) and smallest < 2:
        raise InputError(
            f"BatchNorm cannot compute statistics from {smallest} image per process; raise SOLVER.BATCH_SIZE, start "
            f"fewer than {get_world_size()} processes, or set SOLVER.SYNC_BN True"
        )


def check_same_inputs(config_text: str, data: Split, movable: Collection[str]) -> None:
    """Check that all processes, which may run on several hosts, have the same configuration and images.

    Args:
        config_text: The configuration of this process as YAML.
        data: Its dataset.
        movable: Keys of the configuration that may differ.

    Raises:
        InputError: If one differs from that of the first process.
    """
    if get_world_size() == 1:
        return
    different = changes(broadcast(config_text), config_text, movable)
    if different:
        raise InputError(f"process {get_rank()} has a different configuration than process 0: {'; '.join(different)}")
    lines = {
        part: [f"{Path(image.path).name} {image.identity} {image.camera}" for image in getattr(data, part)]
        for part in ("train", "query", "gallery")
    }
    seen = {part: (len(own), seed_from(own)) for part, own in lines.items()}
    for part, theirs in broadcast(seen).items():
        if seen[part] != theirs:
            raise InputError(
                f"process {get_rank()} has different images than process 0 in '{part}' of {data.name}: "
                f"{seen[part][0]} and {theirs[0]}; give every host the same dataset"
            )
    barrier()  # before any process makes a folder
