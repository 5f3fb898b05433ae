"""What the processes of `gloo` are given to do."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from small_run import callbacks, run_stages
from small_trunk import SmallTrunk
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid import distributed
from reid.commands import main_function, parse
from reid.data.augmentation.augment import Augmentation
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.samplers import Sampler
from reid.decorrelation import RRI, correlation_metric, restrained
from reid.errors import InputError
from reid.evaluation import extraction
from reid.evaluation.features import extract_together
from reid.io import checksums
from reid.losses.objective import LossWeights, Objective
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.parametrization import parametrize_weight
from reid.model.pooling import POOLINGS
from reid.svdnet.plan import Plan
from reid.training.optimizer import Solver
from reid.training.parallel import check_parallel, synchronize_norms
from reid.training.schedule import Schedule
from reid.training.state import TrainState

CLASSES = 5
FROZEN = Solver(norm_statistics="frozen", bias_lr_factor=2.0)
# Name -> (solver, batch size, sampler, losses, parametrization).
SETTINGS: dict[str, tuple[Solver, int, Sampler, LossWeights, str]] = {
    "plain": (FROZEN, 12, Sampler(), LossWeights(label_smoothing=0.1), "none"),
    "uneven": (dataclasses.replace(FROZEN, accumulate=3, clip=0.3), 13, Sampler(), LossWeights(), "none"),
    "averaged": (dataclasses.replace(FROZEN, ema=0.8), 11, Sampler(), LossWeights(), "none"),
    "triplet": (
        FROZEN, 12, Sampler("identity", instances=4),
        LossWeights(triplet=1.0, center=0.1, feature="output", penalty="so", penalty_weight=0.01), "none",
    ),
    "mined": (FROZEN, 12, Sampler("mined"), LossWeights(contrastive=1.0, tuple_size=4), "none"),
    "unused": (FROZEN, 12, Sampler("identity", instances=3), LossWeights(identity=0.0, triplet=1.0), "none"),
    "tied": (FROZEN, 12, Sampler(), LossWeights(), "scaled_orthogonal"),
    "skipped": (dataclasses.replace(FROZEN, accumulate=2, nonfinite="skip"), 12, Sampler(), LossWeights(), "none"),
    # No theorem: what is drawn and what is counted is each process's own.
    "alive": (Solver(ema=0.9), 12, Sampler(), LossWeights(), "none"),
}  # fmt: skip
STAGE = Schedule(epochs=2, lr=(0.05,), schedule="cosine")


def network(parametrization: str = "none", dropout: float = 0.0) -> ReidNetwork:
    torch.manual_seed(0)
    eigenlayer = Eigenlayer(12, 6, init_std=0.3)
    parametrize_weight(eigenlayer, parametrization)
    return ReidNetwork(SmallTrunk(), POOLINGS["average"](12), nn.Identity(), eigenlayer, nn.Linear(6, CLASSES), dropout)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 3, 16, 8), dtype=np.uint8)


class Spoiled(TrainLoader):
    """The last image of every fourth batch is NaN."""

    def epoch(self, seed: int, descriptors: Tensor | None = None, start: int = 0, **shared: int) -> Iterator[Any]:
        for number, (images, labels) in enumerate(super().epoch(seed, descriptors, start, **shared), start):
            if number % 4 == 3 and distributed.get_rank() == distributed.get_world_size() - 1:
                images[-1] = torch.nan
            yield images, labels


def loader(batch: int, sampler: Sampler, spoiled: bool = False) -> TrainLoader:
    kind = Spoiled if spoiled else TrainLoader
    return kind(
        images=pixels(60),
        labels=np.arange(60) % CLASSES,
        batch_size=batch,
        augmentation=Augmentation((0.5,) * 3, (0.25,) * 3, flip=0.5, pad=2, erasing=0.3),
        device="cpu",
        sampler=sampler,
    )


class Run:
    """A run of RRI in the settings of a name, with what it told."""

    def __init__(self, name: str) -> None:
        solver, batch, sampler, weights, parametrization = SETTINGS[name]
        self.loader = loader(batch, sampler, spoiled=name == "skipped")
        self.plan = Plan(STAGE, STAGE, STAGE, solver, max_rounds=1, loss_images=20)
        if parametrization != "none":
            self.plan = dataclasses.replace(self.plan, max_rounds=0)
        model = network(parametrization, dropout=0.3 if name == "alive" else 0.0)
        width = {"input": 12, "output": 6}[weights.feature]
        self.state = TrainState("rri", model, Objective(weights, num_classes=CLASSES, width=width))
        self.entries: list[dict[str, Any]] = []

    def run(self, **hooks: Any) -> dict[str, Any]:
        """Plain values and tensors: the network, the centers, and the log without clocks."""
        entered = callbacks(on_epoch_end=lambda state, entry: self.entries.append(entry), **hooks)
        run_stages(self.state, self.loader, self.plan, entered)
        clocks = ("seconds", "images_per_second")
        return {
            "model": self.state.model.state_dict(),
            "objective": self.state.objective.state_dict(),
            "log": [{key: value for key, value in entry.items() if key not in clocks} for entry in self.entries],
        }


def trainings(names: list[str]) -> dict[str, Any]:
    """Every one of these settings, trained to its end."""
    return {name: Run(name).run() for name in names}


def left_running() -> None:
    """Calls that nobody waits for, so that only the threads of gloo still hold their tensors."""
    for _ in range(3):
        torch.distributed.all_reduce(torch.ones(3_000_000), async_op=True)


class Broken(Exception):
    pass


def broken_and_resumed(name: str, after: int) -> dict[str, Any]:
    """A run, the checkpoint of one broken at step `after`, and how that goes on from there."""
    whole, steps, kept = Run(name).run(), 0, []

    def should_save(state: TrainState) -> bool:
        nonlocal steps
        steps += 1
        return steps == after

    def save(state: TrainState) -> None:
        kept.append(distributed.run_on_main(state.to_checkpoint))
        raise Broken

    first = Run(name)
    try:
        first.run(should_save=should_save, save=save)
    except Broken:
        content = distributed.broadcast(kept[0])
    torch.manual_seed(99)  # what else happened meanwhile must not matter
    return {"whole": whole, "checkpoint": content, "resumed": resumed(name, content)}


def resumed(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """The rest of a run from a checkpoint."""
    again, content = Run(name), copy.deepcopy(content)  # else the optimizer would train on in its tensors
    again.state.model.load_state_dict(content["model"])
    again.state.objective.load_state_dict(content["objective"])
    again.state.restore(content)
    return again.run()


def killed(after: int) -> None:
    """The last process dies without a word."""
    steps = 0

    def should_save(state: TrainState) -> bool:
        nonlocal steps
        steps += 1
        if steps == after and distributed.get_rank() == distributed.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    Run("plain").run(should_save=should_save)


def refused(whose: int) -> None:
    """One process, or all where it is -1, meets bad input while the others go on."""
    if whose in (-1, distributed.get_rank()):
        raise InputError("this is wrong")
    distributed.barrier()


def own_loop() -> dict[str, Any]:
    """A round of `RRI` around DistributedDataParallel, on other data in each process; its weights after each stage."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 6, bias=False), nn.Linear(6, 3))
    layer = cast(nn.Linear, model[2])
    generator = torch.Generator().manual_seed(1 + distributed.get_rank())

    def train() -> Tensor:
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.Adam(wrapped.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss = wrapped(torch.randn(8, 12, generator=generator)).square().mean()
            loss.backward()
            optimizer.step()
        return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    stages = {}
    for report in RRI(model, layer, rounds=1):
        stages["decorrelated"] = layer.weight.detach().clone()
        with restrained(layer):
            stages["Restraint"] = train()
        assert correlation_metric(layer.weight.detach().T) == report.correlation_after
        stages["Relaxation"] = train()
    return stages


def values() -> dict[str, Any]:
    """What goes between processes, as each sees it."""
    rank = distributed.get_rank()
    buffers = [torch.full((2, 3), float(rank)).T, torch.tensor(rank)]
    distributed.broadcast_tensors(buffers)
    model = synchronize_norms(network())
    told = []
    for batch, statistics in ((12, "running"), (12, "frozen"), (1, "frozen")):
        try:
            check_parallel(model, loader(batch, Sampler()), statistics)
            told.append("")
        except InputError as error:
            told.append(str(error))
    try:
        check_parallel(network(), loader(3, Sampler()), "running")
    except InputError as error:
        told.append(str(error))
    features = extract_together(network(), gallery(7, 2))
    return {
        "broadcast": distributed.broadcast({"a": [rank, (1.5, None)], "b": torch.arange(3) + rank}),
        "gather": distributed.gather([rank] * (2 * rank + 1)),
        "on_first": distributed.run_on_main(lambda: os.environ["RANK"]),
        "largest": distributed.all_reduce_max(rank * 7),
        "buffers": buffers,
        "converted": isinstance(model.backbone.bn1, nn.SyncBatchNorm),
        "told": told,
        "features": {name: torch.from_numpy(found.values) for name, found in features.items()},
    }


def gallery(count: int, batch: int) -> TestLoader:
    return TestLoader(
        images=pixels(count), identities=np.arange(1, count + 1), cameras=np.arange(count) % 3 + 1,
        paths=[f"{number}.jpg" for number in range(count)], batch_size=batch, mean=(0.5,) * 3, std=(0.25,) * 3,
        device="cpu",
    )  # fmt: skip


def called(tool: str, arguments: list[str], stop_at: int = 0) -> None:
    """A command as from the command line, to be called in processes that have not joined.

    stop_at: the batch of the last process's training before which it, and it alone, gets SIGTERM.
    """
    main = main_function(tool)
    made, whole = 0, TrainLoader.epoch

    def epoch(self: TrainLoader, *arguments: Any, **options: Any) -> Iterator[Any]:
        nonlocal made
        for batch in whole(self, *arguments, **options):
            made += 1
            if made == stop_at and distributed.get_rank() == distributed.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    TrainLoader.epoch = epoch  # type: ignore[method-assign]
    main(parse(tool, arguments))


def extracted(folder: str, count: int, shard: int, die_at: int = 0) -> dict[str, int]:
    """Query and gallery in shards. die_at: of the last process's files, the one after which it is killed, unannounced.

    A shard that is written and not yet told of is the moment that matters.
    """
    done, write = 0, checksums.write_json

    def dying(path: Path, content: Any) -> None:
        nonlocal done
        if path.parent.name == "gallery":
            done += 1
            if done == die_at and distributed.get_rank() == distributed.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    checksums.write_json = dying
    parts = {"query": gallery(4, 2), "gallery": gallery(count, 2)}
    try:
        return extraction.extract_shards(
            network(), parts, Path(folder), extraction.ShardOptions(shard), settings={"size": [16, 8]}
        )
    finally:
        checksums.write_json = write
