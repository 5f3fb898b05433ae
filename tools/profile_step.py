"""Tell where the time of a training step goes: waiting for data, forward, backward, optimizer."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.config import build
from reid.config.loading import load_config
from reid.errors import InputError, run_command
from reid.training.epoch import Watch, train_epoch
from reid.training.mining import describe_all
from reid.training.optimizer import freeze, make_optimizer, set_training_mode
from reid.training.seeding import seed_everything
from reid.training.state import TrainState
from reid.training.step import compile_backbone
from reid.training.weight_average import follow, start_average

PARTS = {
    "data": "waiting for data",
    "forward": "forward and loss",
    "backward": "backward",
    "optimizer": "clipping and optimizer",
    "rest": "averaging, reading the loss, the bar",
}


class Clock:
    """The seconds of each part of the steps after the first `warm`; a GPU is waited for at the end of each part."""

    def __init__(self, device: torch.device, warm: int) -> None:
        self.device, self.warm, self.steps = device, warm, 0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self.steps >= self.warm:
            self.seconds[part] += now - self.last
        self.steps += part == "optimizer"
        self.last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, type=Path, help="a YAML file of configs/")
    parser.add_argument("--steps", type=int, default=30, help="how many are measured")
    parser.add_argument("--warm-up", type=int, default=5, help="how many come before")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.warm_up < 1:
        raise InputError(f"--steps {arguments.steps} and --warm-up {arguments.warm_up} must be 1 or more")
    config = load_config(arguments.config_file, arguments.overrides)
    device, plan, weights = build.device(config), build.plan(config), build.pretrained(config)
    solver, split = plan.solver, build.split(config)
    loader, classes = build.train_loader(config, split), len(split.train_labels())
    seed_everything(config.SEED)
    model = build.network(config, num_classes=classes, weights=weights).to(device)
    if config.SOLVER.COMPILE:
        compile_backbone(model, device)
    objective = build.objective(config, model, num_classes=classes).to(device)
    freeze(model, plan.step0.freeze)
    optimizer = make_optimizer(model, solver, plan.step0.base_lr(0), plan.step0.lr_factors)
    average = start_average(model) if solver.ema else None
    mined = {}
    if loader.needs_descriptors:
        mined["descriptors"] = describe_all(TrainState("profile", model, objective), loader, solver.dtype)
    set_training_mode(model, solver.norm_statistics)
    clock = Clock(device, arguments.warm_up)
    steps = arguments.warm_up + arguments.steps
    result = train_epoch(
        model,
        _endless(loader, mined),
        count=steps * solver.accumulate,
        optimizer=optimizer,
        factor=lambda part: plan.step0.factor(0),
        objective=objective,
        dtype=solver.dtype,
        accumulate=solver.accumulate,
        clip=solver.clip,
        tf32=solver.tf32,
        skip=solver.nonfinite == "skip",
        watch=Watch(step=lambda: follow(average, model, solver.ema, clock.steps) if average else None, lap=clock.lap),
        title="profile",
    )
    total = sum(clock.seconds.values())
    images = result.images / steps * arguments.steps
    print(f"{config.MODEL.BACKBONE}, {device}, {torch.get_num_threads()} threads, {arguments.steps} steps")
    print(f"{'part of a step':<38} {'ms':>8} {'share':>7}")
    for part, told in PARTS.items():
        seconds = clock.seconds[part]
        print(f"{told:<38} {1000 * seconds / arguments.steps:>8.2f} {seconds / total:>7.1%}")
    print(f"{'together':<38} {1000 * total / arguments.steps:>8.2f}         {images / total:.0f} images/s")


def _endless(loader: Any, mined: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for seed in itertools.count():
        yield from loader.epoch(seed, **mined)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
