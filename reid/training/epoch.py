"""One pass over the training set."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from reid.data.loading.loaders import TrainLoader
from reid.distributed import all_reduce_max, broadcast, gather, get_rank, get_world_size
from reid.errors import Diverged, InputError
from reid.losses.objective import Objective
from reid.model.network import ReidNetwork
from reid.progress import progress_bar
from reid.training.callbacks import Callbacks
from reid.training.optimizer import Solver, set_training_mode
from reid.training.schedule import StagePlan
from reid.training.seeding import random_states, restore_random_states, seed_everything, seed_from
from reid.training.state import EpochProgress, TrainState
from reid.training.step import BatchLoss, autocast, loss_terms, tf32_products, train_step
from reid.training.weight_average import update_average

_PROBED = 8  # images whose logits decide whether a network is worth saving
# Batches per reading of the losses from the device. A GPU waits for each reading.
READ_EVERY = {"cpu": 1, "cuda": 20}


@dataclass(frozen=True)
class EpochBatches:
    """The batches of one epoch.

    Attributes:
        loader: The training data.
        seed: Decides order and augmentation.
        descriptors: (N, D) float32 by which a mining sampler chooses negatives; None for other samplers.
    """

    loader: TrainLoader
    seed: int
    descriptors: Tensor | None = None

    def iterate(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this process's share of the batches.

        Args:
            start: Index of the first batch.

        Returns:
            An iterator over images (B, 3, H, W) float32 and labels (B,) int64.
        """
        return self.loader.epoch(self.seed, self.descriptors, start, rank=get_rank(), world=get_world_size())

    def names(self, batch: int) -> Sequence[str]:
        """List the files of a batch.

        Args:
            batch: Its index.

        Returns:
            The file names, or none where they are unknown.
        """
        return self.loader.batch_paths(self.seed, batch, self.descriptors)


def train_epoch(
    state: TrainState,
    batches: EpochBatches,
    optimizer: Optimizer,
    stage: StagePlan,
    solver: Solver,
    callbacks: Callbacks,
    parallel: DistributedDataParallel | None = None,
) -> EpochProgress:
    """Train one epoch, from its start or from where `state.progress` says it was interrupted.

    Args:
        state: Its model, objective, average and steps are updated.
        batches: The batches of the epoch.
        optimizer: Over the parameters that require a gradient; each group has a `base_lr`.
        stage: Schedule and position of the epoch.
        solver: Settings of the step.
        callbacks: Called after every step, and to save in the middle of the epoch.
        parallel: See `reid.training.step.train_step`.

    Returns:
        The finished epoch, the same on every process.

    Raises:
        Diverged: If the loss, a tensor of the model or its logits are not finite, before anything is saved.
        InputError: If the epoch was interrupted after more batches than it has.
    """
    count, title = len(batches.loader), epoch_title(state, stage)
    progress = _prepare(state, batches, solver, title)
    began = time.perf_counter() - progress.seconds
    read_every = READ_EVERY[state.model.eigenlayer.vectors.device.type]
    source, unread = batches.iterate(progress.batches), list[BatchLoss]()
    shown = progress_bar(title, count, done=progress.batches)
    with _closing(source), shown as bar, tf32_products(solver.tf32):
        while progress.batches < count:
            size = min(solver.accumulate, count - progress.batches)
            position = state.epoch + progress.batches / count
            progress.lr = _set_lr(optimizer, stage.schedule.factor(position))
            step = (itertools.islice(source, size), size, optimizer, solver, position / stage.schedule.epochs)
            losses = train_step(state, *step, parallel=parallel, on_phase_end=callbacks.on_phase_end)
            if len(losses) < size:
                raise ValueError(f"{title}: expected {count} batches, got {progress.batches + len(losses)}")
            unread += losses
            progress.batches += size
            _count_step(state, solver)
            callbacks.on_step(state)
            save = callbacks.should_save(state)
            if save or len(unread) >= read_every or progress.batches == count:
                _read_losses(unread, progress, batches, title, _advice(stage, progress.lr))
                progress.seconds = time.perf_counter() - began
            bar.advance(size, _speed(progress))
            if save and progress.batches < count:
                _check_step(state, batches.loader, solver, title, _advice(stage, progress.lr))
                _save(state, progress, batches, optimizer, callbacks)
    if not progress.images:
        raise Diverged(f"{title}: all {count} batches were skipped; {_advice(stage, progress.lr)}")
    _check_step(state, batches.loader, solver, title, _advice(stage, progress.lr))
    progress.seconds = time.perf_counter() - began
    # Clocks differ, and on different machines so may the last bit of a loss, by which a stage may end early.
    return dataclasses.replace(progress, **broadcast(progress.sums()))


def epoch_title(state: TrainState, stage: StagePlan) -> str:
    """Name the epoch that comes next, for progress bars and errors.

    Args:
        state: Its run and epoch.
        stage: Its name and round.

    Returns:
        For example "rri restraint 2 epoch 3/10".
    """
    return f"{state.run} {stage.name} {stage.round or ''} epoch {state.epoch + 1}/{stage.last_epoch}".replace("  ", " ")


def _prepare(state: TrainState, batches: EpochBatches, solver: Solver, title: str) -> EpochProgress:
    """Set training mode, and restore the random generators where the epoch was interrupted."""
    set_training_mode(state.model, solver.norm_statistics)
    state.objective.train()
    if state.progress is None:
        return EpochProgress()
    done, count = state.progress.batches, len(batches.loader)
    if done >= count:
        raise InputError(
            f"{title}: the checkpoint was saved after {done} batches of an epoch that has {count} now; resume with the "
            "batch size and the data that it was trained with"
        )
    try:
        _restore_random_states(state.progress, batches.seed)
    except RuntimeError as error:  # the state of a GPU, which only its generator can check
        raise InputError(f"{title}: the random states of the checkpoint do not fit this machine ({error})") from None
    return state.progress


def _count_step(state: TrainState, solver: Solver) -> None:
    state.steps += 1
    if state.average is not None:
        update_average(state.average, state.model, solver.ema, state.steps)


def _speed(progress: EpochProgress) -> str:
    if not progress.images:
        return ""
    loss, speed = progress.loss / progress.images, progress.images / progress.seconds
    return f"loss {loss:.2f}, {speed:.0f} images/s"


def _set_lr(optimizer: Optimizer, factor: float) -> float:
    """Set the learning rate of every group; returns that of the first."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    lr: float = optimizer.param_groups[0]["lr"]
    return lr


def _save(
    state: TrainState,
    progress: EpochProgress,
    batches: EpochBatches,
    optimizer: Optimizer,
    callbacks: Callbacks,
) -> None:
    """Save in the middle of the epoch, with what continuing it needs."""
    state.optimizer = optimizer.state_dict()
    progress.random_states = gather(random_states()) or [random_states()]
    progress.descriptors = batches.descriptors
    state.progress = progress
    callbacks.save(state)


def _restore_random_states(progress: EpochProgress, seed: int) -> None:
    """Continue with the next random numbers; a process that was not there before takes new ones."""
    if get_rank() < len(progress.random_states):
        restore_random_states(progress.random_states[get_rank()])
    else:
        seed_everything(seed_from(seed, get_rank(), progress.batches))


@contextlib.contextmanager
def _closing(batches: object) -> Iterator[None]:
    """End the thread that prepares batches, where there is one, also when the epoch is left early."""
    try:
        yield
    finally:
        close = getattr(batches, "close", None)
        if close:
            close()


def _read_losses(
    unread: list[BatchLoss], progress: EpochProgress, batches: EpochBatches, title: str, advice: str
) -> None:
    """Read the losses of the last batches from the device and add them to the sums, in their order."""
    values = iter(torch.cat([loss.values for loss in unread]).tolist())
    for batch, loss in enumerate(unread, progress.batches - len(unread)):
        total, *terms = itertools.islice(values, len(loss.values))
        if not loss.used:
            progress.skipped += 1
            continue
        if not math.isfinite(total):
            raise Diverged(
                f"{title}: the training loss is {total} at batch {batch + 1} of {len(batches.loader)}"
                f"{_list_images(batches.names(batch))}; {advice}, or set SOLVER.NONFINITE skip"
            )
        progress.loss += total * loss.images
        progress.images += loss.images
        if len(terms) > 1:
            for name, term in zip(loss.terms, terms, strict=True):
                progress.parts[name] = progress.parts.get(name, 0.0) + term * loss.images
    unread.clear()


def _list_images(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f", whose {len(names)} images are {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _advice(stage: StagePlan, lr: float) -> str:
    return f"the learning rate was {lr:.3g}: lower {stage.name.upper()}.LR and use --resume --force"


def _check_step(state: TrainState, loader: TrainLoader, solver: Solver, title: str, advice: str) -> None:
    """Check that the network after the last step is finite and still computes finite logits, before it is saved.

    A step that leaves finite weights of 1e30 would otherwise be noticed by the next one, or by the evaluation at the
    end of the stage, when the checkpoint to return to has been replaced. All processes agree on the answer.
    """
    check_finite(state.model, title, advice)
    sample = loader.sample(_PROBED, seed_from(solver.seed, "images that a checked network sees"))
    with torch.no_grad(), evaluation_mode(state.model):
        finite = [_logits(state.model, images, solver.dtype).isfinite().all(1) for images, _ in sample]
    # A single image may overflow in a narrow type, and SOLVER.NONFINITE decides about that.
    if all_reduce_max(int(not torch.cat(finite).any())):
        raise Diverged(f"{title}: after its last step the network computes NaN or infinity for all images; {advice}")


def _logits(model: ReidNetwork, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    with autocast(images.device, dtype):
        logits: Tensor = model(images)
    return logits


def check_finite(model: nn.Module, title: str, advice: str = "lower the learning rate") -> None:
    """Check that no tensor of a model holds NaN or infinity.

    Args:
        model: The network.
        title: What errors begin with.
        advice: What they end with.

    Raises:
        Diverged: If one does.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    # One answer for all of them, since a GPU waits for each.
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    broken = [name for name, good in zip(tensors, finite, strict=True) if not good]
    if broken:
        raise Diverged(f"{title}: {broken[0]} and {len(broken) - 1} more tensors hold NaN or infinity; {advice}")


@torch.no_grad()
def measure_loss(
    model: ReidNetwork,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    objective: Objective,
    dtype: torch.dtype | None = None,
) -> float:
    """Measure the mean loss in evaluation mode: no dropout, running statistics.

    Args:
        model: The network; its mode is restored.
        batches: Images and labels. Losses over pairs use the pairs that a batch happens to hold.
        objective: The loss.
        dtype: Autocast type of the backbone, None for float32.

    Returns:
        The mean over the images.

    Raises:
        Diverged: If it is not finite.
    """
    total, images_seen = 0.0, 0
    with evaluation_mode(model), evaluation_mode(objective):
        for images, labels in batches:
            terms = loss_terms(model, objective, images, labels, dtype=dtype, tuples=False)
            total += sum(term.item() for term in terms.values()) * len(images)
            images_seen += len(images)
    if not math.isfinite(total):
        raise Diverged(f"the loss on training images is {total / images_seen}; lower the learning rate")
    return total / images_seen


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode in the context and restore the mode of each module after it.

    Args:
        model: The network.

    Yields:
        Nothing.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
