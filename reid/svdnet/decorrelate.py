"""Decorrelate: replace the weight vectors of the Eigenlayer by uncorrelated ones, or what comparisons put in place."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from reid.data.loading.loaders import TrainLoader
from reid.decorrelation import (
    condition_number,
    correlation_metric,
    replace_weight,
    severest_pair,
    spectrum,
    transform_classifier,
)
from reid.distributed import broadcast_tensors, run_on_main
from reid.model.classifiers import reset_classifier
from reid.model.network import ReidNetwork
from reid.records import StageLog
from reid.svdnet.plan import Plan
from reid.svdnet.sample_loss import loss_on_sample
from reid.training.callbacks import Callbacks
from reid.training.seeding import seed_from
from reid.training.stage import finish_stage
from reid.training.state import TrainState


def run(state: TrainState, loader: TrainLoader, plan: Plan, callbacks: Callbacks, *, round: int) -> StageLog:
    """Replace W and record the effect: S(W), spectrum, and the training loss just before and after.

    The loss is measured in evaluation mode on the same training images without augmentation both times. The main
    process replaces W and broadcasts it.

    Args:
        state: The state of the run, updated in place. A stage that it holds as finished is not repeated.
        loader: The training data.
        plan: The settings of the run. With variant "none", as in a control, W stays.
        callbacks: Called to evaluate, and with the record.
        round: From 1.

    Returns:
        The record of the stage; its `seconds` are those of the decomposition, the matching and S(W) alone.
    """
    finished = state.done("decorrelate", round)
    if finished:
        return finished
    state.begin("decorrelate", round)
    measured = run_on_main(lambda: _replace(state, loader, plan, round))
    broadcast_tensors(state.model.state_dict().values())
    unchanged = plan.variant == "none" and state.rows
    scores = state.rows[-1].scores if unchanged else callbacks.evaluate(state.model)
    row = StageLog(run=state.run, stage="decorrelate", round=round, epochs=0, scores=scores, **measured)
    return finish_stage(state, row, callbacks)


def _replace(state: TrainState, loader: TrainLoader, plan: Plan, round: int) -> dict[str, Any]:
    """Replace W; returns the fields of the record that depend on it."""
    loss_before = loss_on_sample(state, loader, plan)
    started = time.perf_counter()
    vectors = state.model.eigenlayer.vectors.detach()
    correlation_before = correlation_metric(vectors)
    before = _properties(vectors, "before")
    if plan.variant != "none":
        _replace_weight(state.model, plan, round)
    if plan.reset_classifier and state.model.classifier is not None:
        reset_classifier(state.model.classifier, seed=seed_from(plan.solver.seed, "classifier", round))
    vectors = state.model.eigenlayer.vectors.detach()
    correlation = correlation_metric(vectors)
    after = _properties(vectors, "after")
    seconds = time.perf_counter() - started
    unchanged = plan.variant == "none" and not plan.reset_classifier
    loss_after = loss_before if unchanged else loss_on_sample(state, loader, plan)
    return {
        "seconds": seconds,
        "train_loss": loss_after,
        "correlation": correlation,
        "extra": {
            "train_loss_before": loss_before,
            "train_loss_after": loss_after,
            "variant": plan.variant,
            "correlation_before": correlation_before,
            **before,
            **after,
        },
    }


@torch.no_grad()
def _replace_weight(model: ReidNetwork, plan: Plan, round: int) -> None:
    vectors = model.eigenlayer.vectors.detach()
    seed = seed_from(plan.solver.seed, "rotation", round)
    replacement = replace_weight(vectors, variant=plan.variant, order=plan.order, seed=seed)
    model.eigenlayer.vectors.copy_(replacement.weight)
    if plan.rotate_classifier and model.classifier is not None:
        model.classifier.weight.copy_(transform_classifier(model.classifier.weight, replacement.classifier_transform))


def _properties(vectors: Tensor, moment: str) -> dict[str, Any]:
    condition = condition_number(vectors)
    return {
        f"severest_pair_{moment}": severest_pair(vectors),
        f"condition_number_{moment}": condition if math.isfinite(condition) else None,  # JSON has no infinity
        f"spectrum_{moment}": spectrum(vectors).tolist(),
    }
