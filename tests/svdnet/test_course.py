"""Stages and epochs that are finished and to come."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from small_experiment import EPOCHS, PLAN, Killed, evaluate, experiment, killing

from reid.records import StageLog
from reid.svdnet.course import Course, locate
from reid.svdnet.plan import Plan
from reid.training.state import TrainState

# PLAN: 3 epochs of Step 0, two rounds of a replacement, 2 and 1 epochs, and a final replacement with 2 epochs.
STAGES = 1 + 2 * 3 + 2


def watch(plan: Plan, seen: list[Course]) -> Callable[[TrainState], None]:
    """Collect the course at every call."""
    rows: dict[str, list[StageLog]] = {}

    def see(state: TrainState) -> None:
        rows[state.run] = list(state.rows)
        control, ended = rows.get("control", []), state.run == "control"
        seen.append(locate(plan, rows["rri"], state.epoch, control=control, ended=ended))

    return see


def test_a_run_and_its_control(tmp_path: Path) -> None:
    seen: list[Course] = []
    experiment(tmp_path, on_progress=watch(PLAN, seen)).run()
    assert {(course.stages, course.epochs) for course in seen} == {(2 * STAGES - 1, 2 * EPOCHS - 3)}
    assert seen[0] == Course(stage=1, stages=17, epoch=0, epochs=19, exact=False)
    assert seen[-1] == Course(stage=17, stages=17, epoch=19, epochs=19, exact=True)
    for course, later in itertools.pairwise(seen):
        assert course.epoch <= later.epoch <= course.epoch + 1 and course.stage <= later.stage <= course.stage + 1


def test_a_resumed_run_starts_where_it_was(tmp_path: Path) -> None:
    seen: list[Course] = []
    with pytest.raises(Killed):
        experiment(tmp_path, score=killing(3, evaluate)).run()
    experiment(tmp_path, resume=True, on_progress=watch(PLAN, seen)).run()
    # Killed in the evaluation after the first Restraint, whose two epochs are saved.
    assert (seen[0].stage, seen[0].epoch) == (3, 5)


def test_a_run_that_converges_shortens_the_control(tmp_path: Path) -> None:
    seen: list[Course] = []
    plan = dataclasses.replace(PLAN, patience=1, tolerance=10.0, max_rounds=5)
    summary = experiment(tmp_path, plan=plan, on_progress=watch(plan, seen)).run()
    assert (summary["stopped"], seen[0].stages) == ("converged", 2 * (1 + 5 * 3 + 2) - 1)
    assert seen[-1].stage == seen[-1].stages == len(summary["rows"]) < seen[0].stages
    assert seen[-1].epoch == seen[-1].epochs
