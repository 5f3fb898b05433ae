"""A run and its control in one folder: what is written, and that a broken run goes on to the same end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid.checkpoint import load_checkpoint
from reid.experiment import Experiment
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS
from reid.records import Scores
from reid.run import RunFolder
from reid.stages.optimizer import Solver
from reid.stages.rri import Plan
from reid.stages.schedule import Schedule

EPOCHS = 3 + 2 * 3 + 2
FINAL = {"feature": "input", "normalized": False, "flip": False}


class Pixels(nn.Module):
    out_channels = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()


def make_network() -> ReidNetwork:
    torch.manual_seed(0)
    return ReidNetwork(Pixels(), POOLINGS["average"](6), nn.Identity(), Eigenlayer(6, 4), nn.Linear(4, 3), 0.3)


class Loader:
    images = torch.randn(24, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(24) % 3
    mines = False

    def __len__(self) -> int:
        return 3

    def epoch(self, seed: int, descriptors: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
        return ((self.images[i], self.labels[i]) for i in order.split(8))

    def sample(self, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.images[:count], self.labels[:count]


def evaluate(model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
    """Any number that follows from the weights alone."""
    value = float(model.eigenlayer.weight.detach().abs().sum() % 1)
    score = Scores(value, value, value, value, value, value, (value, 1.0), 10)
    flips = (False, True) if last else (False,)
    return tuple(dataclasses.replace(score, feature=f, flip=b) for b in flips for f in ("input", "output"))


def experiment(path: Path, *, resume: bool = False, **changes: Any) -> Experiment:
    folder = RunFolder(path)
    folder.open("SEED: 0\n", resume=resume)
    plan = Plan(
        step0=Schedule(epochs=3, lr=(0.1,)),
        restraint=Schedule(epochs=2, lr=(0.1,)),
        relaxation=Schedule(epochs=1, lr=(0.1,)),
        solver=Solver(),
        max_rounds=2,
        patience=3,
        final_restraint=True,
        loss_images=10,
    )
    given: dict[str, Any] = {
        "make_network": make_network,
        "loader": Loader(),
        "evaluate": evaluate,
        "carried": {"config": "SEED: 0\n", "num_classes": 3},
        "control": True,
        "origin": {"kind": "start"},
    }
    return Experiment(folder=folder, plan=plan, final=FINAL, dataset="small", **{**given, **changes})


def log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    summary = experiment(tmp_path).run()
    assert json.loads((tmp_path / "scores.json").read_text()) == summary
    rows = [(row["run"], row["stage"], row["round"]) for row in summary["rows"]]
    rounds = [(s, r) for r in (1, 2) for s in ("decorrelate", "restraint", "relaxation")]
    rounds += [("decorrelate", 3), ("restraint", 3)]
    assert rows == [("rri", "step0", 0), *(("rri", *x) for x in rounds), *(("control", *x) for x in rounds)]
    assert (summary["rounds"], summary["stopped"], summary["dataset"]) == (2, "max_rounds", "small")
    last = {row["run"]: row for row in summary["rows"]}
    assert summary["final"] in last["rri"]["scores"]
    assert summary["control_final"] in last["control"]["scores"]
    assert {score["flip"] for score in last["rri"]["scores"]} == {False, True}
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    stages = {f"r{r:02d}_{s}" for s, r in rounds}
    assert names == {f"{run}_{s}.pth" for run in ("rri", "control") for s in {*stages, "last"}} | {"rri_step0.pth"}
    lines = log(tmp_path)
    assert sum(line["kind"] == "epoch" for line in lines) == EPOCHS + EPOCHS - 3
    stage = next(line for line in lines if line["kind"] == "stage" and line["stage"] == "decorrelate")
    assert {"spectrum_before", "spectrum_after", "cmc", "loss", "correlation", "scores"} <= set(stage)
    assert lines[0] == {"kind": "start"}
    assert all({"kind", "run", "stage", "round", "epoch", "loss", "correlation"} <= set(line) for line in lines[1:4])


def test_the_control_starts_from_step_0(tmp_path: Path) -> None:
    experiment(tmp_path).run()
    step0 = load_checkpoint(tmp_path / "checkpoints" / "rri_step0.pth")["model"]
    control = load_checkpoint(tmp_path / "checkpoints" / "control_r01_decorrelate.pth")["model"]
    assert all(torch.equal(step0[name], control[name]) for name in step0)


def test_without_a_control(tmp_path: Path) -> None:
    summary = experiment(tmp_path, control=False).run()
    assert summary["control_final"] is None
    assert {row["run"] for row in summary["rows"]} == {"rri"}


class Killed(BaseException):
    pass


def killing(after: int, where: Callable[[ReidNetwork], Any]) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Killed
        return where(*arguments)

    return call


@pytest.mark.parametrize("after", [2, 5, 10, 12, 16])
def test_a_run_killed_and_resumed_ends_the_same(tmp_path: Path, after: int) -> None:
    """Killed while evaluating for the `after`-th time, in Step 0, in a round, at the end and in the control."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = experiment(whole).run()
    with pytest.raises(Killed):
        experiment(broken, evaluate=killing(after, evaluate)).run()
    found = experiment(broken, resume=True).run()

    clock = ("seconds", "images_per_second")

    def timeless(summary: dict[str, Any]) -> dict[str, Any]:
        return {**summary, "rows": [{k: v for k, v in row.items() if k not in clock} for row in summary["rows"]]}

    assert timeless(found) == timeless(expected)
    assert [{k: v for k, v in line.items() if k not in clock} for line in log(broken)] == [
        {k: v for k, v in line.items() if k not in clock} for line in log(whole)
    ]
    for path in (whole / "checkpoints").iterdir():
        tensors = load_checkpoint(broken / "checkpoints" / path.name)["model"]
        assert all(torch.equal(t, tensors[n]) for n, t in load_checkpoint(path)["model"].items()), path.name


def test_the_pooling_starts_from_the_training_set_once(tmp_path: Path) -> None:
    starts: list[torch.Tensor] = []

    def with_vlad() -> ReidNetwork:
        torch.manual_seed(0)
        pooling = POOLINGS["netvlad"](6, clusters=2)
        start = pooling.initialise

        def initialise(descriptors: np.ndarray, *, seed: int) -> None:
            assert descriptors.shape == (20, 6)
            start(descriptors, seed=seed)
            starts.append(pooling.centres.detach().clone())

        pooling.initialise = initialise
        return ReidNetwork(Pixels(), pooling, nn.Identity(), Eigenlayer(12, 4), nn.Linear(4, 3), 0.3)

    changes: dict[str, Any] = {"make_network": with_vlad, "descriptors": 20}
    whole = experiment(tmp_path / "whole", **changes).run()
    assert len(starts) == 1
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        experiment(broken, evaluate=killing(2, evaluate), **changes).run()
    assert len(starts) == 2 and torch.equal(*starts)
    again = experiment(broken, resume=True, **changes).run()
    assert len(starts) == 2 and again["final"] == whole["final"]


def test_a_finished_run_resumed_trains_nothing(tmp_path: Path) -> None:
    expected = experiment(tmp_path).run()

    class NoTraining(Loader):
        def epoch(self, seed: int, descriptors: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            raise AssertionError("trained again")

    assert experiment(tmp_path, resume=True, loader=NoTraining()).run() == expected


def test_step_0_alone_is_evaluated_once(tmp_path: Path) -> None:
    asked = []

    def counting(model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
        asked.append(last)
        return evaluate(model, last)

    run = experiment(tmp_path / "run", evaluate=counting, control=False)
    alone = dataclasses.replace(run, plan=dataclasses.replace(run.plan, max_rounds=0, final_restraint=False))
    summary = alone.run()
    assert asked == [True]
    assert {score["flip"] for score in summary["rows"][0]["scores"]} == {False, True}
