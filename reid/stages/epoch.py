"""One pass over the training set."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from reid.errors import Diverged
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork


@dataclass(frozen=True)
class EpochResult:
    """loss: mean over the images. lr: rate at the end. seconds: wall clock. parts: the mean of each weighted term of
    the loss, empty where there is one alone."""

    loss: float
    lr: float
    images: int
    seconds: float
    parts: dict[str, float]


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Autocast to `dtype` on `device`, or nothing where `dtype` is None."""
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def train_epoch(
    model: ReidNetwork,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    count: int,
    optimizer: Optimizer,
    factor: Callable[[float], float],
    objective: Objective,
    progress: Callable[[float], float] = lambda part: part,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> EpochResult:
    """Train on `count` batches of (images, labels).

    factor: part of the epoch done, in [0, 1) -> what each group's `base_lr` is multiplied by. objective: what is
    minimised. progress: part of the epoch done -> part of the stage done, which the objective asks for. The model is
    left in the mode it came in. Raises Diverged when the loss is NaN or infinite.
    """
    started = time.perf_counter()
    total, images_seen, rate = 0.0, 0, 0.0
    parts: dict[str, float] = {}
    bar = tqdm(batches, total=count, desc=title, unit="batch", leave=False, mininterval=1.0)
    for step, (images, labels) in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step / count)
        rate = optimizer.param_groups[0]["lr"]
        terms = _terms(model, objective, images, labels, dtype, progress=progress(step / count))
        loss = torch.stack(list(terms.values())).sum()
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(f"{title}: the training loss is {value} at batch {step + 1} of {count}; lower the rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += value * len(images)
        images_seen += len(images)
        if len(terms) > 1:
            parts |= {name: parts.get(name, 0.0) + term.item() * len(images) for name, term in terms.items()}
        speed = images_seen / (time.perf_counter() - started)
        bar.set_postfix_str(f"loss {total / images_seen:.3f}, {speed:.0f} images/s", refresh=False)
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise Diverged(f"{title}: {broken[0]} and {len(broken) - 1} more tensors hold NaN or infinity; lower the rate")
    means = {name: value / images_seen for name, value in parts.items()}
    return EpochResult(total / images_seen, rate, images_seen, time.perf_counter() - started, means)


def _terms(
    model: ReidNetwork,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype | None,
    *,
    progress: float = 0.0,
    tuples: bool = True,
) -> dict[str, Tensor]:
    with autocast(images.device, dtype):
        embedding = model.embed(images)
        logits = model.classify(embedding.output, labels if model.training else None)
    vectors = model.eigenlayer.vectors
    return objective(
        logits, labels, input=embedding.input, output=embedding.output, vectors=vectors, progress=progress,
        tuples=tuples,
    )  # fmt: skip


@torch.no_grad()
def measure_loss(
    model: ReidNetwork,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    objective: Objective,
    dtype: torch.dtype | None = None,
) -> float:
    """Mean loss over `batches` in evaluation mode (no dropout, running statistics); the model's mode is restored.

    Losses over pairs take those that a batch happens to hold.
    """
    total, images_seen = 0.0, 0
    with evaluation_mode(model), evaluation_mode(objective):
        for images, labels in batches:
            terms = _terms(model, objective, images, labels, dtype, tuples=False)
            total += sum(term.item() for term in terms.values()) * len(images)
            images_seen += len(images)
    if not math.isfinite(total):
        raise Diverged(f"the loss on training images is {total / images_seen}; lower the rate")
    return total / images_seen


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and outside again the mode that each module had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
