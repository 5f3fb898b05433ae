"""A stage that trains: what Step 0, Restraint and Relaxation have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from reid.data.loading.loaders import TrainLoader
from reid.decorrelation import correlation_metric
from reid.distributed import broadcast_tensors, get_rank, is_main_process
from reid.records import StageLog
from reid.training.callbacks import Callbacks
from reid.training.epoch import EpochBatches, train_epoch
from reid.training.mining import describe_all
from reid.training.optimizer import Solver, freeze, make_optimizer, resume_optimizer
from reid.training.parallel import parallelize
from reid.training.schedule import StagePlan
from reid.training.seeding import seed_everything, seed_from
from reid.training.state import EpochProgress, TrainState
from reid.training.weight_average import load_average, start_average


def train_stage(
    state: TrainState, loader: TrainLoader, stage: StagePlan, solver: Solver, callbacks: Callbacks
) -> StageLog:
    """Train one stage, from its start or from the epoch and batch that `state` has reached, and evaluate at its end.

    Several processes train as one, each on its share of every batch, and hold the same state at the end of an epoch.
    With `solver.ema` the network becomes the average at the end of the stage, and the S(W) of every epoch is that of
    the average so far.

    Args:
        state: Updated in place. A stage that it holds as finished is not trained again.
        loader: The training data.
        stage: What to train.
        solver: Settings that all stages share.
        callbacks: Called after every step, epoch and stage.

    Returns:
        The record of the stage.

    Raises:
        Diverged: If the training diverges.
        InputError: If a freeze names no parameter, or the unfinished stage was trained with a different optimizer.
    """
    finished = state.done(stage.name, stage.round)
    if finished:
        return finished
    model, schedule = state.model, stage.schedule
    freeze(model, (*schedule.freeze, *stage.freeze))
    fused = state.fused if solver.fused is None else solver.fused
    solver = dataclasses.replace(solver, optimizer=schedule.optimizer or solver.optimizer, fused=fused)
    optimizer = make_optimizer(model, solver, schedule.base_lr(stage.round), schedule.lr_factors)
    parallel = parallelize(model, state.objective, loader)
    if state.begin(stage.name, stage.round) and state.optimizer is not None:
        resume_optimizer(optimizer, state.optimizer)
    if solver.ema and state.average is None:
        state.average = start_average(model)
    while not stage.finished(state.losses):
        callbacks.on_epoch_begin(state, loader, solver)
        batches = _epoch_batches(state, loader, stage, solver)
        with callbacks.hold_signals():
            progress = train_epoch(state, batches, optimizer, stage, solver, callbacks, parallel)
            broadcast_tensors(model.buffers())
            state.finish_epoch(progress, optimizer.state_dict())
            callbacks.on_epoch_end(state, _log_entry(state, stage, progress))
    if state.average is not None:
        load_average(model, state.average)
    broadcast_tensors(model.state_dict().values())
    row = StageLog(
        run=state.run,
        stage=stage.name,
        round=stage.round,
        epochs=state.epoch,
        seconds=state.seconds,
        train_loss=state.losses[-1],
        correlation=correlation_metric(model.eigenlayer.vectors),
        scores=callbacks.evaluate(model),
        extra={"lr": state.lr, "images_per_second": state.images / state.seconds},
    )
    return finish_stage(state, row, callbacks)


def finish_stage(state: TrainState, row: StageLog, callbacks: Callbacks) -> StageLog:
    """Add the record of a stage to the state and report it.

    Args:
        state: Updated in place.
        row: The record.
        callbacks: Called with it.

    Returns:
        The record.
    """
    state.finish(row)
    callbacks.on_stage_end(state, row)
    return row


def _epoch_batches(state: TrainState, loader: TrainLoader, stage: StagePlan, solver: Solver) -> EpochBatches:
    """Seed the random generators for the next epoch, and mine its negatives where the sampler asks for that."""
    # The name of the run is not part of the seed: a control sees the same batches as its original.
    seed = seed_from(solver.seed, stage.name, stage.round, state.epoch)
    # What a process draws beside its share of the images, for dropout say, differs between processes.
    seed_everything(seed if is_main_process() else seed_from(seed, get_rank()))
    if not loader.needs_descriptors:
        return EpochBatches(loader, seed)
    kept = state.progress.descriptors if state.progress else None
    return EpochBatches(loader, seed, describe_all(state, loader, solver.dtype) if kept is None else kept)


def _log_entry(state: TrainState, stage: StagePlan, progress: EpochProgress) -> dict[str, Any]:
    """The line of `log.jsonl` about an epoch."""
    parts = {name: value / progress.images for name, value in progress.parts.items()}
    return {
        "kind": "epoch",
        "run": state.run,
        "stage": stage.name,
        "round": stage.round,
        "epoch": state.epoch,
        "loss": state.losses[-1],
        "lr": progress.lr,
        "images_per_second": progress.images / progress.seconds,
        "seconds": progress.seconds,
        "correlation": _correlation(state),
        **({"losses": parts} if parts else {}),
        **({"skipped": progress.skipped} if progress.skipped else {}),
    }


def _correlation(state: TrainState) -> float:
    """S(W) of what would be evaluated now."""
    if state.average is None:
        return correlation_metric(state.model.eigenlayer.vectors)
    trained = {name: tensor.clone() for name, tensor in state.model.state_dict().items() if name in state.average}
    load_average(state.model, state.average)
    correlation = correlation_metric(state.model.eigenlayer.vectors)
    load_average(state.model, trained)
    return correlation
