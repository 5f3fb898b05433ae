"""A network and data small enough that a whole run takes a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_trunk import SmallTrunk
from torch import Tensor, nn

from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS
from reid.svdnet import rri, step0
from reid.svdnet.plan import Plan
from reid.training.callbacks import Callbacks
from reid.training.optimizer import Solver
from reid.training.schedule import Schedule
from reid.training.state import TrainState

CLASSES = 5


@dataclass
class SmallLoader:
    """Colored noise: the class decides the mean color."""

    images: Tensor
    labels: Tensor
    batch: int = 10
    needs_descriptors: bool = False

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def _order(self, seed: int, descriptors: Tensor | None) -> tuple[Tensor, ...]:
        """Random; or, of a loader that mines, by what the descriptors are at the moment."""
        if descriptors is not None:
            return descriptors[:, 0].argsort(stable=True).split(self.batch)
        return torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed)).split(self.batch)

    def shard_sizes(self, world: int) -> tuple[int, ...]:
        return tuple(len(part) for part in torch.arange(self.batch).tensor_split(world))

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self._order(seed, descriptors)[start:]:
            own = index.tensor_split(world)[rank]
            yield self.images[own], self.labels[own]

    def batch_paths(self, seed: int, batch: int, descriptors: Tensor | None = None) -> tuple[str, ...]:
        return tuple(f"{number}.jpg" for number in self._order(seed, descriptors)[batch].tolist())

    def sample(self, count: int, seed: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        own = torch.arange(len(self.images[:count])).tensor_split(world)[rank]
        yield self.images[own], self.labels[own]


def callbacks(**functions: Callable[..., Any]) -> Callbacks:
    """Callbacks with some functions in place of their methods."""
    made = Callbacks()
    for name, function in functions.items():
        assert hasattr(made, name), name
        setattr(made, name, function)
    return made


def same_plan(schedule: Schedule, solver: Solver | None = None, **options: Any) -> Plan:
    """A plan whose stages all have one schedule."""
    return Plan(schedule, schedule, schedule, solver or Solver(), **{"loss_images": 40, **options})


def run_stages(state: TrainState, loader: Any, plan: Plan, callbacks: Callbacks) -> str:
    """Step 0 and the iteration, as `tools/train_svdnet.py` runs them."""
    step0.run(state, loader, plan, callbacks)
    return rri.run(state, loader, plan, callbacks)


@pytest.fixture
def make_model() -> Callable[[], ReidNetwork]:
    def make() -> ReidNetwork:
        torch.manual_seed(0)
        trunk = SmallTrunk()
        eigenlayer = Eigenlayer(12, 6, init_std=0.3)
        return ReidNetwork(trunk, POOLINGS["average"](12), nn.Identity(), eigenlayer, nn.Linear(6, CLASSES), 0.2)

    return make


@pytest.fixture
def loader() -> SmallLoader:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(50) % CLASSES
    colors = torch.randn(CLASSES, 3, generator=generator)
    noise = torch.randn(50, 3, 8, 6, generator=generator)
    return SmallLoader(colors[labels][:, :, None, None] + 0.5 * noise, labels)
