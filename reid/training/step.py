"""One step of the optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from reid.errors import InputError
from reid.losses.objective import Objective
from reid.model.network import Embedding, ReidNetwork


@dataclass(frozen=True)
class BatchLoss:
    """What a batch cost, still on the device.

    images: how many. terms: the names of the weighted terms. values: (1 + terms,) float32, the loss and its terms.
    used: whether the step took the batch, which is decided only where unusable batches are skipped.
    """

    images: int
    terms: tuple[str, ...]
    values: Tensor
    used: bool = True


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Autocast to `dtype` on `device`, or nothing where `dtype` is None."""
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Matrix products on TF32 tensor cores inside, where wanted; outside the replaced W needs all its digits."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = wanted or before
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def compile_backbone(model: ReidNetwork, device: torch.device) -> None:
    """Have the backbone run as `torch.compile` makes it. Raises InputError where this machine cannot compile."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # compilers fail in ways of their own
        raise InputError(
            f"torch.compile fails on this machine ({type(error).__name__}); install a C++ compiler, or set "
            "SOLVER.COMPILE False"
        ) from None
    model.backbone.compile()


def loss_terms(
    model: ReidNetwork,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype | None,
    *,
    progress: float = 0.0,
    tuples: bool = True,
) -> dict[str, Tensor]:
    """The weighted terms of the objective on a batch, see `Objective`."""
    embedding, logits = outputs(model, images, labels, dtype)
    vectors = model.eigenlayer.vectors
    return objective(
        logits, labels, input=embedding.input, output=embedding.output, vectors=vectors, progress=progress,
        tuples=tuples,
    )  # fmt: skip


def outputs(model: ReidNetwork, images: Tensor, labels: Tensor, dtype: torch.dtype | None) -> tuple[Embedding, Tensor]:
    """What the objective compares: the embedding and the logits."""
    with autocast(images.device, dtype):
        embedding = model.embed(images)
        return embedding, model.classify(embedding.output, labels if model.training else None)


def train_step(
    model: ReidNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    *,
    optimizer: Optimizer,
    objective: Objective,
    progress: float = 0.0,
    dtype: torch.dtype | None = None,
    clip: float = 0.0,
    skip: bool = False,
    lap: Callable[[str], None] = lambda part: None,
    parallel: DistributedDataParallel | None = None,
) -> list[BatchLoss]:
    """One step on the mean gradient of `count` batches of (images, labels), and what each of them cost.

    clip: largest norm of that gradient over all parameters, 0 for no limit. skip: a batch whose loss is not finite is
    left out, with what it did to running statistics; a step whose gradient is not finite is left out whole. That has to
    read the loss of every batch from the device. lap: called at the end of each part of the step, with "data",
    "forward", "backward" or "optimizer", and first with "rest" for what came between two steps. parallel: of
    `reid.training.parallel`, where the batches are this process's shares: loss and gradient are those of the whole ones.
    """
    optimizer.zero_grad(set_to_none=True)
    lap("rest")
    losses, at_start = [], _statistics(model, objective) if skip else []
    for number, (images, labels) in enumerate(batches, 1):
        lap("data")
        before = _statistics(model, objective) if skip else []
        with parallel.no_sync() if parallel and number < count else contextlib.nullcontext():
            if parallel:
                terms = parallel(images, labels, dtype, progress)
            else:
                terms = loss_terms(model, objective, images, labels, dtype, progress=progress)
            weighted = torch.stack(list(terms.values()))
            loss = weighted.sum()
            lap("forward")
            values = torch.cat([loss[None], weighted]).detach()
            used = not skip or bool(values.isfinite().all())
            seen = parallel.module.images if parallel else len(images)
            losses.append(BatchLoss(seen, tuple(terms), values, used))
            if used:
                (loss / count).backward()
            else:
                _restore(model, objective, before)
        lap("backward")
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if parallel and not losses[-1].used:
        mean_gradients(parameters)  # which the backward pass of the last batch would have done
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf")) if clip or skip else None
    if not skip or (norm is not None and any(loss.used for loss in losses) and norm.isfinite()):
        optimizer.step()
    else:
        _restore(model, objective, at_start)
        losses = [BatchLoss(loss.images, loss.terms, loss.values, used=False) for loss in losses]
    lap("optimizer")
    return losses


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every gradient the mean of the processes'."""
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def _statistics(*modules: nn.Module) -> list[Tensor]:
    return [buffer.clone() for module in modules for buffer in module.buffers()]


@torch.no_grad()
def _restore(model: nn.Module, objective: nn.Module, before: list[Tensor]) -> None:
    for buffer, kept in zip((*model.buffers(), *objective.buffers()), before, strict=True):
        buffer.copy_(kept)
