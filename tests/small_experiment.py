"""An experiment small enough that a run with its control takes less than a second, and ways to break and compare it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from small_run import run_stages
from torch import Tensor, nn

from reid.io.checkpoint import load_checkpoint
from reid.losses.objective import Objective
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS
from reid.records import Scores
from reid.svdnet import rri
from reid.svdnet.experiment import Experiment
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.run_folder import RunFolder
from reid.training.schedule import Schedule

EPOCHS = 3 + 2 * 3 + 2
PLAN = Plan(
    step0=Schedule(epochs=3, lr=(0.1,)),
    restraint=Schedule(epochs=2, lr=(0.1,)),
    relaxation=Schedule(epochs=1, lr=(0.1,)),
    solver=Solver(),
    max_rounds=2,
    patience=3,
    final_restraint=True,
    loss_images=10,
)
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
    needs_descriptors = False

    def __len__(self) -> int:
        return 3

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
        return ((self.images[i], self.labels[i]) for i in order.split(8)[start:])

    def batch_paths(self, seed: int, batch: int, descriptors: Tensor | None = None) -> tuple[str, ...]:
        return ()

    def shard_sizes(self, world: int) -> tuple[int, ...]:
        return (8,)

    def sample(self, count: int, seed: int, **shared: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.images[:count], self.labels[:count]


def evaluate(model: ReidNetwork, last: bool) -> tuple[Scores, ...]:
    """Any number that follows from the weights alone."""
    value = float(model.eigenlayer.weight.detach().abs().sum() % 1)
    per_query = model.eigenlayer.weight.detach().abs().double().flatten()[:12].view(4, 3).numpy() % 1
    score = Scores(value, value, value, value, value, value, (value, 1.0), 4, per_query=per_query)
    flips = (False, True) if last else (False,)
    return tuple(dataclasses.replace(score, feature=f, flip=b) for b in flips for f in ("input", "output"))


@dataclass(frozen=True)
class Trial:
    """An experiment and what it trains, as `tools/train_svdnet.py` puts them together."""

    path: Path
    resume: bool = False
    force: bool = False
    make_network: Callable[[], ReidNetwork] = make_network
    make_objective: Callable[[ReidNetwork], Objective] = lambda model: Objective()
    loader: Any = field(default_factory=Loader)
    plan: Plan = PLAN
    control: bool = True
    descriptors: int = 20
    options: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        folder = RunFolder(self.path)
        folder.open("SEED: 0\n", resume=self.resume, force=self.force)
        given = {
            "score": evaluate,
            "final": FINAL,
            "checkpoint_metadata": {"config": "SEED: 0\n", "num_classes": 3},
            "dataset": "small",
            "provenance": {},
        }
        experiment = Experiment(folder=folder, **{**given, **self.options})
        model = self.make_network()
        with experiment.recording():
            objective = self.make_objective(model)
            state = experiment.begin(model, objective, self.loader, self.plan, descriptors=self.descriptors)
            stopped = run_stages(state, self.loader, self.plan, experiment)
            summary = experiment.finish(state, stopped)
            if self.control:
                control = experiment.begin_control(state)
                rri.run_control(control, self.loader, self.plan, experiment, state.rows)
                summary = experiment.finish(control)
        return summary


def experiment(path: Path, **changes: Any) -> Trial:
    """A trial; what its fields do not name goes to `Experiment`."""
    names = {f.name for f in fields(Trial)}
    options = {name: value for name, value in changes.items() if name not in names}
    return Trial(path, options=options, **{name: changes[name] for name in names & set(changes)})


def log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


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


def assert_same_run(found: Path, expected: Path) -> None:
    """The same log, but for times, and in every checkpoint the same tensors."""
    assert timeless(log(found)) == timeless(log(expected))
    for path in (expected / "checkpoints").iterdir():
        content, other = load_checkpoint(path), load_checkpoint(found / "checkpoints" / path.name)
        for part in ("model", "objective"):
            assert content[part].keys() == other[part].keys()
            assert all(torch.equal(tensor, other[part][name]) for name, tensor in content[part].items()), path.name


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "images_per_second")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


class KillingLoader(Loader):
    """A loader that ends the process before its batch number `after`, counted from 1 over all epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().epoch(*arguments, **options):
            self.after -= 1
            if not self.after:
                raise Killed
            yield batch
