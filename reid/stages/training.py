"""A stage that trains: what Step 0, Restraint and Relaxation have in common."""

from __future__ import annotations

import dataclasses

from reid.decorrelation import correlation_metric
from reid.records import StageLog
from reid.run import seed_everything, seed_from
from reid.stages.epoch import train_epoch
from reid.stages.mining import describe_all
from reid.stages.optimizer import Solver, freeze, make_optimizer, set_training_mode
from reid.stages.schedule import Schedule
from reid.stages.state import Batches, Hooks, TrainState


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
    """Train one stage, from its start or from the epoch that `state` has reached, and evaluate at its end.

    stop_after: end after so many epochs of the schedule and ignore the loss (a control ends where its original did).
    """
    model = state.model
    freeze(model, (*schedule.freeze, *also_frozen))
    solver = dataclasses.replace(solver, optimizer=schedule.optimizer or solver.optimizer)
    optimizer = make_optimizer(model, solver, schedule.base_lr(round), schedule.lr_factors)
    if state.begin(stage, round) and state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    last = stop_after or schedule.epochs
    while state.epoch < last and not (stop_after is None and schedule.settled(state.losses)):
        epoch = state.epoch
        # The run's name is left out: a control sees the same batches as its original.
        seed = seed_from(solver.seed, stage, round, epoch)
        seed_everything(seed)
        descriptors = {"descriptors": describe_all(state, loader, solver.dtype)} if loader.mines else {}
        set_training_mode(model, solver.norm_statistics)
        state.objective.train()
        result = train_epoch(
            model,
            loader.epoch(seed, **descriptors),
            count=len(loader),
            optimizer=optimizer,
            factor=lambda part: schedule.factor(state.epoch + part),
            objective=state.objective,
            progress=lambda part: (state.epoch + part) / schedule.epochs,
            dtype=solver.dtype,
            title=f"{state.run} {stage} {round or ''} epoch {epoch + 1}/{last}".replace("  ", " "),
        )
        state.epoch += 1
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
                "correlation": correlation_metric(model.eigenlayer.vectors),
                **({"losses": result.parts} if result.parts else {}),
            },
        )
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
