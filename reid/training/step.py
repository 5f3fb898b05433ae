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
from reid.model.network import ReidNetwork
from reid.training.optimizer import Solver
from reid.training.state import TrainState


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch, still on the device.

    Attributes:
        images: Number of images.
        terms: Names of the weighted terms.
        values: (1 + terms,) float32, the loss and its terms.
        used: False for a batch that was skipped.
    """

    images: int
    terms: tuple[str, ...]
    values: Tensor
    used: bool = True


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Make the autocast context of a forward pass.

    Args:
        device: Where it runs.
        dtype: The lower precision, or None for float32.

    Returns:
        The context manager.
    """
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def evaluated_in(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Make the context of a forward pass of an evaluation.

    Args:
        device: Where it runs.
        dtype: The lower precision, or None for float32, in which GPUs would compute convolutions in TF32.

    Yields:
        Nothing.
    """
    conv = getattr(torch.backends.cudnn, "conv", None)
    # PyTorch before 2.9 has only the older setting.
    owner, name, full = (conv, "fp32_precision", "ieee") if conv else (torch.backends.cudnn, "allow_tf32", False)
    before = getattr(owner, name)
    with autocast(device, dtype):
        if device.type == "cuda" and dtype is None:
            setattr(owner, name, full)
        try:
            yield
        finally:
            if getattr(owner, name) != before:
                setattr(owner, name, before)


@contextlib.contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Allow matrix products on TF32 tensor cores in the context; outside, replacing W needs all its digits.

    Args:
        enabled: Whether to allow them.

    Yields:
        Nothing.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = enabled or before
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def compile_backbone(model: ReidNetwork, device: torch.device) -> None:
    """Compile the backbone by `torch.compile`.

    Args:
        model: Changed in place.
        device: Where the network will run.

    Raises:
        InputError: If this machine cannot compile.
    """
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
    *,
    dtype: torch.dtype | None = None,
    progress: float = 0.0,
    tuples: bool = True,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, Tensor]:
    """Compute the weighted terms of the objective on a batch.

    Args:
        model: The network.
        objective: What is minimized.
        images: (B, 3, H, W) float32, normalized.
        labels: (B,) int64 class labels.
        dtype: Autocast type of the backbone, None for float32.
        progress: Finished part of the stage, in [0, 1].
        tuples: Whether the batch consists of the tuples of a mining sampler.
        gather: Applied to logits, features and labels before the objective, to collect the rows of all processes.

    Returns:
        Float32 scalars by name; their sum is the loss.
    """
    with autocast(images.device, dtype):
        embedding = model.embed(images)
        logits = model.classify(embedding.output, labels if model.training else None)
    # Gathered one by one, so that an output the objective does not use gets no gradient rather than one of zeros, by
    # which momentum and weight decay would move its parameters.
    logits, input, output, labels = map(gather, (logits, embedding.input, embedding.output, labels))
    vectors = model.eigenlayer.vectors
    return objective(
        logits, labels, input=input, output=output, vectors=vectors, progress=progress, tuples=tuples
    )  # fmt: skip


def train_step(
    state: TrainState,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    optimizer: Optimizer,
    solver: Solver,
    progress: float = 0.0,
    *,
    parallel: DistributedDataParallel | None = None,
    on_phase_end: Callable[[str], None] = lambda phase: None,
) -> list[BatchLoss]:
    """Make one step on the mean gradient of some batches.

    With `solver.nonfinite` "skip" a batch whose loss is not finite is left out, together with its effect on running
    statistics, and a step whose gradient is not finite is left out as a whole. This reads the loss of every batch from
    the device.

    Args:
        state: Its model and objective are trained.
        batches: Images (B, 3, H, W) float32 and labels (B,) int64.
        count: Number of batches.
        optimizer: Over the parameters that require a gradient.
        solver: Precision, gradient clipping, and what happens to batches that are not finite.
        progress: Finished part of the stage, in [0, 1].
        parallel: Of `reid.training.parallel`, where `batches` are the shares of this process: loss and gradient are
            those of the whole batches.
        on_phase_end: See `reid.training.callbacks.Callbacks.on_phase_end`.

    Returns:
        The loss of each batch that was there.
    """
    model, objective, skip = state.model, state.objective, solver.nonfinite == "skip"
    optimizer.zero_grad(set_to_none=True)
    on_phase_end("rest")
    losses, at_start = [], _statistics(model, objective) if skip else []
    for number, (images, labels) in enumerate(batches, 1):
        on_phase_end("data")
        before = _statistics(model, objective) if skip else []
        with parallel.no_sync() if parallel and number < count else contextlib.nullcontext():
            if parallel:
                terms = parallel(images, labels, solver.dtype, progress)
            else:
                terms = loss_terms(model, objective, images, labels, dtype=solver.dtype, progress=progress)
            weighted = torch.stack(list(terms.values()))
            loss = weighted.sum()
            on_phase_end("forward")
            values = torch.cat([loss[None], weighted]).detach()
            used = not skip or bool(values.isfinite().all())
            seen = parallel.module.images if parallel else len(images)
            losses.append(BatchLoss(seen, tuple(terms), values, used))
            if used:
                (loss / count).backward()
            else:
                _restore(model, objective, before)
        on_phase_end("backward")
    if not _update(optimizer, solver, losses, parallel is not None):
        _restore(model, objective, at_start)
        losses = [BatchLoss(loss.images, loss.terms, loss.values, used=False) for loss in losses]
    on_phase_end("optimizer")
    return losses


def _update(optimizer: Optimizer, solver: Solver, losses: list[BatchLoss], parallel: bool) -> bool:
    """Clip the gradient and update the parameters; False where the step must be skipped."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if parallel and not losses[-1].used:
        mean_gradients(parameters)  # the backward pass of the last batch would have done this
    skip = solver.nonfinite == "skip"
    if solver.clip or skip:
        norm = torch.nn.utils.clip_grad_norm_(parameters, solver.clip or float("inf"))
        if skip and not (any(loss.used for loss in losses) and norm.isfinite()):
            return False
    optimizer.step()
    return True


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the mean over the processes.

    Args:
        parameters: Those without a gradient are left out.
    """
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
