"""The number of threads is chosen by timing, recorded, and taken over when a run is resumed; timing affects nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_experiment import EPOCHS, Killed, Loader, assert_same_run, evaluate, experiment, killing, log, make_network
from small_run import SmallLoader
from torch import Tensor

from reid.losses.objective import LossWeights, Objective
from reid.model.network import ReidNetwork
from reid.training.optimizer import Solver
from reid.training.state import ThreadChange, TrainState
from reid.training.threads import RecordedThreads, ThreadChooser, timed_step

IDLE, BUSY, TIE = {1: 0.2, 2: 0.14}, {1: 0.22, 2: 15.0}, {1: 0.2, 2: 0.21}


class Machine:
    """A clock that steps advance, by how long they take with the present number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now, self.steps, self.seconds = 1000.0, 0, seconds

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.steps += 1
        self.now += self.seconds[torch.get_num_threads()]

    def prepare(self) -> Callable[[], None]:
        return self.step

    def chooser(self, limit: int = 2, **options: Any) -> ThreadChooser:
        return ThreadChooser(limit, clock=self.clock, **options)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch only counts: several threads would wait for each other where other tests run."""
    counts = [1]
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])


def at(epoch: int, *rates: float, stage: str = "restraint") -> TrainState:
    return TrainState("rri", make_network(), stage=stage, round=1, epoch=epoch, rates=list(rates))


@pytest.mark.parametrize(("seconds", "expected"), [(IDLE, 2), (BUSY, 1), (TIE, 2)])
def test_the_clearly_fastest_number_is_chosen_in_few_steps(seconds: dict[int, float], expected: int) -> None:
    machine = Machine(seconds)
    entry = machine.chooser().start(machine.prepare, 1000)
    assert entry is not None
    assert (entry["kind"], entry["threads"], torch.get_num_threads()) == ("threads", expected, expected)
    assert entry["seconds"] == pytest.approx({str(count): value for count, value in seconds.items()})
    assert machine.steps <= 6
    assert machine.now - 1000 < 1.5 * max(1.0, *seconds.values())  # a step that takes long is made once


@pytest.mark.parametrize("fastest", [1, 2, 4, 8, 12, 15, 16])
def test_more_cores(fastest: int) -> None:
    machine = Machine({count: 0.1 * (10 if count > fastest else fastest / count) for count in range(1, 17)})
    machine.chooser(16).start(machine.prepare, 1000)
    assert torch.get_num_threads() == fastest


@pytest.mark.parametrize(("options", "steps"), [({"fixed": True}, 1000), ({"limit": 1}, 1000), ({}, 20)])
def test_nothing_is_timed_without_a_choice_or_for_a_short_training(options: dict[str, Any], steps: int) -> None:
    machine = Machine(BUSY)
    chooser = machine.chooser(**options)
    assert chooser.start(machine.prepare, steps) is None
    state = at(0)
    assert chooser.next_epoch(state, machine.prepare) is None
    assert machine.steps == 0
    assert state.threads == [ThreadChange("restraint", 1, 0, chooser.limit)]
    assert torch.get_num_threads() == chooser.limit


def test_timing_takes_at_most_a_hundredth_of_the_training() -> None:
    machine = Machine(BUSY)
    chooser = machine.chooser()
    chooser.start(machine.prepare, 1000)
    spent, state = machine.now - 1000, at(3, 9.0, 9.0, 9.0)
    machine.seconds, steps = IDLE, machine.steps
    machine.now += 99 * spent
    assert chooser.next_epoch(state, machine.prepare) is None and machine.steps == steps
    machine.now += 2 * spent
    entry = chooser.next_epoch(state, machine.prepare)  # since it trains with fewer threads than it might
    assert entry is not None and entry["before"] == 1 and entry["threads"] == 2
    assert state.threads[-1] == ThreadChange("restraint", 1, 3, 2)


@pytest.mark.parametrize(("rates", "expected"), [((100.0, 70.0), 2), ((100.0, 60.0), 1)])
def test_a_slow_epoch_is_looked_into(rates: tuple[float, ...], expected: int) -> None:
    machine = Machine(IDLE)
    chooser = machine.chooser()
    chooser.start(machine.prepare, 1000)
    machine.now += 1000
    machine.seconds = BUSY
    chooser.next_epoch(at(2, *rates), machine.prepare)
    assert torch.get_num_threads() == expected


def test_nothing_changes_within_an_epoch() -> None:
    machine = Machine(BUSY)
    chooser = machine.chooser()
    chooser.resume(2)
    machine.now += 1000
    state = at(0)
    state.progress = object()  # type: ignore[assignment]
    assert chooser.next_epoch(state, machine.prepare) is None and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("recorded", "options", "expected"),
    [(1, {}, 1), (None, {}, 2), (4, {}, 2), (1, {"fixed": True}, 2)],
)
def test_a_resumed_training_takes_the_number_it_had(
    recorded: int | None, options: dict[str, Any], expected: int
) -> None:
    machine = Machine(IDLE)
    chooser = machine.chooser(**options)
    chooser.resume(recorded)
    assert torch.get_num_threads() == expected
    assert chooser.next_epoch(at(0), machine.prepare) is None and machine.steps == 0


def test_a_timed_step_affects_nothing(make_model: Callable[[], ReidNetwork], loader: SmallLoader) -> None:
    model, objective = make_model(), Objective(LossWeights(triplet=1.0, center=0.1), num_classes=5, width=12)
    state = TrainState("rri", model, objective)
    before = [copy.deepcopy(module.state_dict()) for module in (model, objective)]
    random_before = (torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate())
    chooser = ThreadChooser(2)
    chooser.start(lambda: timed_step(state, loader, Solver()), 1000)
    assert chooser.timed
    for module, tensors in zip((model, objective), before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_before[0])
    assert str(np.random.get_state(legacy=False)) == str(random_before[1]) and random.getstate() == random_before[2]


def test_a_resumed_run_uses_the_same_numbers_and_logs_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(BUSY)
    monkeypatch.setattr("reid.svdnet.experiment.timed_step", lambda *_: machine.step)
    monkeypatch.setattr("reid.training.threads._WORTH_STEPS", 1)

    def score(model: ReidNetwork, last: bool) -> Any:
        machine.now += 1e4  # a stage has passed
        machine.seconds = IDLE
        return evaluate(model, last)

    told: list[str] = []
    common = {"provenance": {"machine": {"threads": 2}}, "warn": told.append}

    def run(folder: Path, *, resume: bool = False, score: Any = score) -> None:
        experiment(tmp_path / folder, resume=resume, score=score, threads=machine.chooser(), **common).run()

    run(Path("whole"))
    entries = log(tmp_path / "whole")
    assert entries[0]["machine"] == {"threads": 1}
    changes = [entry for entry in entries if entry["kind"] == "threads"]
    assert [(entry["threads"], entry.get("stage")) for entry in changes] == [(1, None), (2, "restraint")]
    assert told == ["threads: 2 instead of 1, which is faster now"]

    machine.seconds = BUSY
    with pytest.raises(Killed):
        run(Path("killed"), score=killing(1, evaluate))  # in the evaluation of Step 0
    torch.set_num_threads(2)
    machine.seconds = IDLE
    run(Path("killed"), resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert told[1:] == told[:1]  # no change of the machine


@pytest.mark.parametrize("batches", [2, 3 * EPOCHS + 2], ids=["Step 0", "control"])
def test_killed_in_a_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    machine, counts = Machine(BUSY), list[int]()
    monkeypatch.setattr("reid.svdnet.experiment.timed_step", lambda *_: machine.step)
    monkeypatch.setattr("reid.training.threads._WORTH_STEPS", 1)

    class Counted(Loader):
        def epoch(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().epoch(*arguments, **options):
                counts.append(torch.get_num_threads())
                if len(counts) == batches:
                    raise Killed
                yield batch

    with pytest.raises(Killed):
        experiment(tmp_path, loader=Counted(), threads=machine.chooser()).run()
    torch.set_num_threads(2)
    experiment(tmp_path, resume=True, loader=Counted(), threads=machine.chooser()).run()
    assert len(counts) > batches and set(counts) == {1}


def test_step_0_is_repeated_with_its_numbers() -> None:
    changes = (ThreadChange("step0", 0, 0, 2), ThreadChange("step0", 0, 2, 1), ThreadChange("restraint", 1, 0, 2))
    again, counts = RecordedThreads(changes), []
    again.begin()
    for epoch in range(4):
        state = TrainState("rri", make_network(), stage="step0", epoch=epoch)
        again.on_epoch_begin(state, SmallLoader(torch.empty(0), torch.empty(0)), Solver())
        counts.append(torch.get_num_threads())
    assert counts == [2, 2, 1, 1]
