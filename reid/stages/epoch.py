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
from reid.losses.identity import identity_loss
from reid.model.network import ReidNetwork


@dataclass(frozen=True)
class EpochResult:
    """loss: mean over the images. lr: rate at the end. seconds: wall clock."""

    loss: float
    lr: float
    images: int
    seconds: float


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
    label_smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> EpochResult:
    """Train on `count` batches of (images, labels).

    factor: part of the epoch done, in [0, 1) -> what each group's `base_lr` is multiplied by. The model is left in the
    mode it came in. Raises Diverged when the loss is NaN or infinite.
    """
    started = time.perf_counter()
    total, images_seen, rate = 0.0, 0, 0.0
    bar = tqdm(batches, total=count, desc=title, unit="batch", leave=False, mininterval=1.0)
    for step, (images, labels) in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step / count)
        rate = optimizer.param_groups[0]["lr"]
        with autocast(images.device, dtype):
            logits = model(images)
        loss = identity_loss(logits, labels, label_smoothing=label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(f"{title}: the training loss is {value} at batch {step + 1} of {count}; lower the rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += value * len(images)
        images_seen += len(images)
        speed = images_seen / (time.perf_counter() - started)
        bar.set_postfix_str(f"loss {total / images_seen:.3f}, {speed:.0f} images/s", refresh=False)
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise Diverged(f"{title}: {broken[0]} and {len(broken) - 1} more tensors hold NaN or infinity; lower the rate")
    return EpochResult(total / images_seen, rate, images_seen, time.perf_counter() - started)


@torch.no_grad()
def measure_loss(
    model: ReidNetwork,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    label_smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> float:
    """Mean loss over `batches` in evaluation mode (no dropout, running statistics); the model's mode is restored."""
    total, images_seen = 0.0, 0
    with evaluation_mode(model):
        for images, labels in batches:
            with autocast(images.device, dtype):
                logits = model(images)
            total += identity_loss(logits, labels, label_smoothing=label_smoothing).item() * len(images)
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
