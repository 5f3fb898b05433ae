"""Print where the time of a training step goes: waiting for data, forward, backward, optimizer."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from reid.config import build
from reid.config.loading import load_config
from reid.data.loading.loaders import TrainLoader
from reid.errors import InputError
from reid.training.callbacks import Callbacks
from reid.training.epoch import EpochBatches, train_epoch
from reid.training.mining import describe_all
from reid.training.optimizer import freeze, make_optimizer
from reid.training.schedule import StagePlan
from reid.training.seeding import seed_everything
from reid.training.state import TrainState
from reid.training.step import compile_backbone
from reid.training.threads import same_thread_count
from reid.training.weight_average import start_average

PARTS = {
    "data": "waiting for data",
    "forward": "forward and loss",
    "backward": "backward",
    "optimizer": "clipping and optimizer",
    "rest": "averaging, reading the loss, progress bar",
}


class _Endless(TrainLoader):
    """As many batches of a loader as are measured, from one epoch after the other."""

    batches: int

    def __init__(self, loader: TrainLoader, batches: int) -> None:
        vars(self).update(vars(loader), batches=batches)

    def __len__(self) -> int:
        return self.batches

    def epoch(
        self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `TrainLoader.epoch`; without an end."""
        for number in itertools.count(seed):
            yield from super().epoch(number, descriptors, **shared)


class _Clock(Callbacks):
    """The seconds of each phase of the steps after a warm-up; waits for a GPU at the end of each phase."""

    def __init__(self, device: torch.device, warm: int) -> None:
        self.device, self.warm, self.steps = device, warm, 0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()

    def on_phase_end(self, phase: str) -> None:
        """Add the seconds since the last phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self.steps >= self.warm:
            self.seconds[phase] += now - self.last
        self.steps += phase == "optimizer"
        self.last = now


@same_thread_count()
def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.steps < 1 or arguments.warm_up < 1:
        raise InputError(f"--steps {arguments.steps} and --warm-up {arguments.warm_up} must be 1 or more")
    config = load_config(arguments.config_file, arguments.overrides)
    build.use_threads(config)
    device, weights, split = build.device(config), build.pretrained(config), build.split(config)
    loader, classes = build.train_loader(config, split), len(split.train_labels())
    seed_everything(config.SEED)
    model = build.network(config, num_classes=classes, weights=weights).to(device)
    plan = build.plan(config, model)
    solver = plan.solver
    if config.SOLVER.COMPILE:
        compile_backbone(model, device)
    objective = build.objective(config, model, num_classes=classes).to(device)
    freeze(model, plan.step0.freeze)
    optimizer = make_optimizer(model, solver, plan.step0.base_lr(0), plan.step0.lr_factors)
    state = TrainState("profile", model, objective, average=start_average(model) if solver.ema else None)
    descriptors = describe_all(state, loader, solver.dtype) if loader.needs_descriptors else None
    clock = _Clock(device, arguments.warm_up)
    steps = arguments.warm_up + arguments.steps
    batches = EpochBatches(_Endless(loader, steps * solver.accumulate), 0, descriptors)
    result = train_epoch(state, batches, optimizer, StagePlan("step0", 0, plan.step0), solver, clock)
    total = sum(clock.seconds.values())
    images = result.images / steps * arguments.steps
    print(f"{config.MODEL.BACKBONE}, {device}, {torch.get_num_threads()} threads, {arguments.steps} steps")
    print(f"{'part of a step':<38} {'ms':>8} {'share':>7}")
    for part, meaning in PARTS.items():
        seconds = clock.seconds[part]
        print(f"{meaning:<38} {1000 * seconds / arguments.steps:>8.2f} {seconds / total:>7.1%}")
    print(f"{'total':<38} {1000 * total / arguments.steps:>8.2f}         {images / total:.0f} images/s")
