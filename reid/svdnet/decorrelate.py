"""Decorrelate: replace the Eigenlayer's weight vectors by uncorrelated ones."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from reid.decorrelation import (
    classifier_turned,
    condition_number,
    correlation_metric,
    replace_weight,
    severest_pair,
    spectrum,
)
from reid.distributed import broadcast_tensors, run_on_main
from reid.records import StageLog
from reid.training.epoch import measure_loss
from reid.training.optimizer import Solver
from reid.training.seeding import seed_from
from reid.training.state import Batches, Hooks, TrainState


def run(
    state: TrainState,
    loader: Batches,
    *,
    round: int,
    variant: str,
    order: str,
    rotate_classifier: bool,
    loss_images: int,
    solver: Solver,
    hooks: Hooks,
) -> StageLog:
    """Replace the weight and record what that did: S(W), spectrum, and the training loss just before and after.

    variant "none" leaves the weight alone, as a control does. The loss is measured in evaluation mode on the same
    `loss_images` unaugmented training images both times. `seconds` of the row counts the decomposition, the
    matching and S(W), nothing else. Of several processes the first replaces, and the others take over the bits.
    """
    state.begin("decorrelate", round)
    done = run_on_main(
        lambda: _replace(state, loader, variant, order, rotate_classifier, loss_images=loss_images, solver=solver)
    )
    broadcast_tensors(state.model.state_dict().values())
    unchanged = variant == "none" and state.rows
    scores = state.rows[-1].scores if unchanged else hooks.evaluate(state.model, False)
    row = StageLog(run=state.run, stage="decorrelate", round=round, epochs=0, scores=scores, **done)
    state.finish(row)
    hooks.stage(state, row)
    return row


def _replace(
    state: TrainState,
    loader: Batches,
    variant: str,
    order: str,
    rotate_classifier: bool,
    *,
    loss_images: int,
    solver: Solver,
) -> dict[str, Any]:
    """Replace the weight; returns what the row of the stage tells of that."""
    model = state.model
    before = _loss(state, loader, loss_images, solver)
    started = time.perf_counter()
    vectors = model.eigenlayer.vectors.detach()
    facts = {
        "variant": variant,
        "correlation_before": correlation_metric(vectors),
        "severest_pair_before": severest_pair(vectors),
        "condition_number_before": _finite(condition_number(vectors)),
        "spectrum_before": spectrum(vectors).tolist(),
    }
    if variant != "none":
        replacement = replace_weight(vectors, variant=variant, order=order)
        with torch.no_grad():
            model.eigenlayer.vectors.copy_(replacement.weight)
            if rotate_classifier and model.classifier is not None:
                model.classifier.weight.copy_(classifier_turned(model.classifier.weight, replacement.turn))
    vectors = model.eigenlayer.vectors.detach()
    correlation = correlation_metric(vectors)
    facts |= {
        "severest_pair_after": severest_pair(vectors),
        "condition_number_after": _finite(condition_number(vectors)),
        "spectrum_after": spectrum(vectors).tolist(),
    }
    seconds = time.perf_counter() - started
    after = before if variant == "none" else _loss(state, loader, loss_images, solver)
    return {
        "seconds": seconds,
        "train_loss": after,
        "correlation": correlation,
        "extra": {"train_loss_before": before, "train_loss_after": after, **facts},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no infinity


def _loss(state: TrainState, loader: Batches, count: int, solver: Solver) -> float:
    batches = loader.sample(count, seed_from(solver.seed, "loss before and after a replacement"))
    return measure_loss(state.model, batches, objective=state.objective, dtype=solver.dtype)
