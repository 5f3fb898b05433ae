"""One pass over the training set."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from tqdm import tqdm

from reid.distributed import is_main_process
from reid.errors import Diverged
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.training.step import BatchLoss, loss_terms, tf32_products, train_step

READ_EVERY = 20  # batches between two looks at the losses on a GPU, which would else wait for each


@dataclass
class Sums:
    """What an epoch has added up so far, in plain values that a checkpoint can hold.

    batches: done. images: in them. loss and parts (the weighted terms, where there are several): sums over the images.
    skipped: batches left out of all that. lr: the last rate. seconds: wall clock.
    """

    batches: int = 0
    images: int = 0
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    lr: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class EpochResult:
    """loss: mean over the images. lr: rate at the end. seconds: wall clock. parts: the mean of each weighted term of
    the loss, empty where there is one alone. skipped: batches left out."""

    loss: float
    lr: float
    images: int
    seconds: float
    parts: dict[str, float]
    skipped: int = 0


@dataclass(frozen=True)
class Watch:
    """Who looks on while an epoch is trained.

    step(): after every step. due(): whether to save now. save(sums): does it. names(batch): the files of a batch.
    lap(part): at the end of each part of a step, see `train_step`.
    """

    step: Callable[[], None] = lambda: None
    due: Callable[[], bool] = lambda: False
    save: Callable[[Sums], None] = lambda sums: None
    names: Callable[[int], Sequence[str]] = lambda batch: ()
    lap: Callable[[str], None] = lambda part: None


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
    accumulate: int = 1,
    clip: float = 0.0,
    tf32: bool = False,
    skip: bool = False,
    sums: Sums | None = None,
    watch: Watch | None = None,
    read_every: int = 0,
    title: str = "",
    parallel: DistributedDataParallel | None = None,
) -> EpochResult:
    """Train on `count` batches of (images, labels).

    factor: part of the epoch done, in [0, 1) -> what each group's `base_lr` is multiplied by. objective: what is
    minimized. progress: part of the epoch done -> part of the stage done, which the objective asks for. accumulate:
    batches a step. clip, skip: see `train_step`. sums: of an epoch that goes on in its midst, whose next batch is the
    first of `batches`. read_every: batches after which the losses are read; 0: every one on a CPU, READ_EVERY on a GPU.
    parallel: see `train_step`.
    The model is left in the mode it came in. Raises Diverged when the loss is NaN or infinite, at the latest when it is
    read, which is before anything is saved.
    """
    sums, watch = sums or Sums(), watch or Watch()
    began = time.perf_counter() - sums.seconds
    every = read_every or (1 if model.eigenlayer.vectors.device.type == "cpu" else READ_EVERY)
    waiting: list[BatchLoss] = []
    bar = tqdm(
        batches, total=count, initial=sums.batches, desc=title, unit="batch", leave=False, mininterval=1.0,
        disable=not is_main_process(),
    )  # fmt: skip
    given = iter(bar)
    with _closing(batches), tf32_products(tf32):
        while sums.batches < count:
            size, part = min(accumulate, count - sums.batches), sums.batches / count
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor(part)
            sums.lr = optimizer.param_groups[0]["lr"]
            losses = train_step(
                model, itertools.islice(given, size), size, optimizer=optimizer, objective=objective,
                progress=progress(part), dtype=dtype, clip=clip, skip=skip, lap=watch.lap, parallel=parallel,
            )  # fmt: skip
            if len(losses) < size:
                raise ValueError(f"{title}: {count} batches were promised, {sums.batches + len(losses)} came")
            waiting += losses
            sums.batches += size
            watch.step()
            due = watch.due()
            if due or len(waiting) >= every or sums.batches == count:
                _read(waiting, sums, watch, f"{title}: ", count)
                sums.seconds = time.perf_counter() - began
                done = f"loss {sums.loss / max(1, sums.images):.3f}, {sums.images / sums.seconds:.0f} images/s"
                bar.set_postfix_str(done, refresh=False)
            if due and sums.batches < count:
                check_finite(model, title)
                watch.save(sums)
        bar.close()
    if not sums.images:
        raise Diverged(f"{title}: every one of the {count} batches was skipped; lower the rate")
    check_finite(model, title)
    means = {name: value / sums.images for name, value in sums.parts.items()}
    seconds = time.perf_counter() - began
    return EpochResult(sums.loss / sums.images, sums.lr, sums.images, seconds, means, sums.skipped)


@contextlib.contextmanager
def _closing(batches: object) -> Iterator[None]:
    """End the thread that makes the batches, where there is one, also when the epoch is left early."""
    try:
        yield
    finally:
        close = getattr(batches, "close", None)
        if close:
            close()


def _read(waiting: list[BatchLoss], sums: Sums, watch: Watch, title: str, count: int) -> None:
    """Add what the last batches cost to the sums, in the order of the batches."""
    values = iter(torch.cat([loss.values for loss in waiting]).tolist())
    for batch, loss in enumerate(waiting, sums.batches - len(waiting)):
        total, *terms = itertools.islice(values, len(loss.values))
        if not loss.used:
            sums.skipped += 1
            continue
        if not math.isfinite(total):
            raise Diverged(
                f"{title}the training loss is {total} at batch {batch + 1} of {count}"
                f"{_told(watch.names(batch))}; lower the rate, or set SOLVER.NONFINITE skip"
            )
        sums.loss += total * loss.images
        sums.images += loss.images
        if len(terms) > 1:
            for name, term in zip(loss.terms, terms, strict=True):
                sums.parts[name] = sums.parts.get(name, 0.0) + term * loss.images
    waiting.clear()


def _told(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f", whose {len(names)} images are {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def check_finite(model: nn.Module, title: str) -> None:
    """Raise Diverged where a tensor of the model holds NaN or infinity."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    # One answer for all of them, since each costs a GPU a wait.
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    broken = [name for name, good in zip(tensors, finite, strict=True) if not good]
    if broken:
        raise Diverged(f"{title}: {broken[0]} and {len(broken) - 1} more tensors hold NaN or infinity; lower the rate")


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
            terms = loss_terms(model, objective, images, labels, dtype, tuples=False)
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
