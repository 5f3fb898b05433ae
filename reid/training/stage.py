"""A stage that trains: what Step 0, Restraint and Relaxation have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from reid.decorrelation import correlation_metric
from reid.distributed import broadcast, broadcast_tensors, gather, get_rank, get_world_size, is_main_process
from reid.records import StageLog
from reid.training.epoch import EpochResult, Sums, Watch, train_epoch
from reid.training.mining import describe_all
from reid.training.optimizer import Solver, freeze, make_optimizer, resume_optimizer, set_training_mode
from reid.training.parallel import in_parallel
from reid.training.schedule import Schedule
from reid.training.seeding import random_states, restore_random_states, seed_everything, seed_from
from reid.training.state import Batches, Hooks, Middle, TrainState
from reid.training.weight_average import adopt, follow, start_average


def train_stage(
    state: TrainState,
    loader: Batches,
    *,
    stage: str,
    round: int,
    schedule: Schedule,
    solver: Solver,
    hooks: Hooks,
    also_frozen: tuple[str, ...] = (),
    stop_after: int | None = None,
) -> StageLog:
    """Train one stage, from its start or from the epoch and batch that `state` has reached, and evaluate at its end.

    stop_after: end after so many epochs of the schedule and ignore the loss (a control ends where its original did).
    Several processes train as one, each on its share of every batch, and hold the same state at the end of an epoch.
    Where `solver.ema` asks for an average, the network is that average once the stage has ended, and the S(W) of every
    epoch is that of the average so far.
    """
    model = state.model
    freeze(model, (*schedule.freeze, *also_frozen))
    solver = dataclasses.replace(solver, optimizer=schedule.optimizer or solver.optimizer)
    optimizer = make_optimizer(model, solver, schedule.base_lr(round), schedule.lr_factors)
    parallel = in_parallel(model, state.objective, loader)
    if state.begin(stage, round) and state.optimizer is not None:
        resume_optimizer(optimizer, state.optimizer)
    if solver.ema and state.average is None:
        state.average = start_average(model)
    last = stop_after or schedule.epochs
    while state.epoch < last and not (stop_after is None and schedule.settled(state.losses)):
        epoch = state.epoch
        # The run's name is left out: a control sees the same batches as its original.
        seed = seed_from(solver.seed, stage, round, epoch)
        # What is drawn in a process beside its share of the images, for dropout say, is its own.
        seed_everything(seed if is_main_process() else seed_from(seed, get_rank()))
        mined: dict[str, Any] = {}
        if loader.needs_descriptors:
            kept = state.middle.descriptors if state.middle else None
            mined = {"descriptors": describe_all(state, loader, solver.dtype) if kept is None else kept}
        title = f"{state.run} {stage} {round or ''} epoch {epoch + 1}/{last}".replace("  ", " ")
        with hooks.held():
            result = _train_epoch(
                state, loader, optimizer, schedule, solver, hooks, seed=seed, mined=mined, title=title,
                parallel=parallel,
            )  # fmt: skip
            broadcast_tensors(model.buffers())
            state.epoch += 1
            state.middle = None
            state.losses.append(result.loss)
            state.seconds += result.seconds
            state.images += result.images
            state.lr = result.lr
            state.optimizer = optimizer.state_dict()
            hooks.epoch(
                state,
                {
                    "kind": "epoch",
                    "run": state.run,
                    "stage": stage,
                    "round": round,
                    "epoch": state.epoch,
                    "loss": result.loss,
                    "lr": result.lr,
                    "images_per_second": result.images / result.seconds,
                    "seconds": result.seconds,
                    "correlation": _correlation(state),
                    **({"losses": result.parts} if result.parts else {}),
                    **({"skipped": result.skipped} if result.skipped else {}),
                },
            )
    if state.average is not None:
        adopt(model, state.average)
    broadcast_tensors(model.state_dict().values())
    row = StageLog(
        run=state.run,
        stage=stage,
        round=round,
        epochs=state.epoch,
        seconds=state.seconds,
        train_loss=state.losses[-1],
        correlation=correlation_metric(model.eigenlayer.vectors),
        scores=hooks.evaluate(model, False),
        extra={"lr": state.lr, "images_per_second": state.images / state.seconds},
    )
    state.finish(row)
    hooks.stage(state, row)
    return row


def _train_epoch(
    state: TrainState,
    loader: Batches,
    optimizer: Optimizer,
    schedule: Schedule,
    solver: Solver,
    hooks: Hooks,
    *,
    seed: int,
    mined: dict[str, Any],
    title: str,
    parallel: DistributedDataParallel | None,
) -> EpochResult:
    """One epoch from its start, or from its middle with the random numbers that would have come next."""
    model, sums = state.model, None
    set_training_mode(model, solver.norm_statistics)
    state.objective.train()
    if state.middle:
        sums = state.middle.sums
        _restore_random(state.middle, seed)

    def step() -> None:
        state.steps += 1
        if state.average is not None:
            follow(state.average, model, solver.ema, state.steps)

    def save(sums: Sums) -> None:
        state.optimizer = optimizer.state_dict()
        random = gather(random_states()) or [random_states()]
        state.middle = Middle(sums, random[0], mined.get("descriptors"), random[1:])
        hooks.save(state)

    result = train_epoch(
        model,
        loader.epoch(seed, **mined, start=sums.batches if sums else 0, rank=get_rank(), world=get_world_size()),
        count=len(loader),
        optimizer=optimizer,
        factor=lambda part: schedule.factor(state.epoch + part),
        objective=state.objective,
        progress=lambda part: (state.epoch + part) / schedule.epochs,
        dtype=solver.dtype,
        accumulate=solver.accumulate,
        clip=solver.clip,
        tf32=solver.tf32,
        skip=solver.nonfinite == "skip",
        sums=sums,
        watch=Watch(step=step, due=hooks.due, save=save, names=lambda batch: loader.batch_paths(seed, batch, **mined)),
        title=title,
        parallel=parallel,
    )
    # Clocks differ, and on unlike machines so may the last bit of a loss, by which a stage may end early.
    return EpochResult(**broadcast(dataclasses.asdict(result)))


def _restore_random(middle: Middle, seed: int) -> None:
    """Go on with the random numbers that would have come next; of a process that was not there, with new ones."""
    states = [middle.random, *middle.others]
    if get_rank() < len(states):
        restore_random_states(states[get_rank()])
    else:
        seed_everything(seed_from(seed, get_rank(), middle.sums.batches))


def _correlation(state: TrainState) -> float:
    """S(W) of what would be evaluated now."""
    if state.average is None:
        return correlation_metric(state.model.eigenlayer.vectors)
    trained = {name: tensor.clone() for name, tensor in state.model.state_dict().items() if name in state.average}
    adopt(state.model, state.average)
    correlation = correlation_metric(state.model.eigenlayer.vectors)
    adopt(state.model, trained)
    return correlation
