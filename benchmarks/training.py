"""Training speed in images per second: this project with and without what saves time, and torchreid's trainer.

    python benchmarks/training.py [--torchreid CLONE] [--size 128 64] [--threads 2] [--rounds 5] [--images FOLDER]

OSNet-x0.25 from random weights, flip, pad-crop and random erasing, AMSGrad, label smoothing, 751 classes, float32, at
128 x 64 and 256 x 128 unless `--size` says otherwise. Each row is a process of its own that trains one epoch per round,
in turns. The rows below the default leave out one of what saves time, or all: the optimizer's step as one kernel, the
gates of OSNet as matrix products, and freed memory that is kept for the next step. Ours reads its decoded cache;
torchreid's DataLoader uses two workers, which its trainer starts every epoch. The whole of torchreid is imported, with
its dependencies such as opencv-python, h5py and gdown. A ratio is the median over rounds of a time divided by that of
the default in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import benchmark_parser, in_rounds, median_ratio, show
from torch import nn

from reid.data.augmentation.augment import Augmentation
from reid.data.images.cache import decode_images
from reid.data.loading.loaders import TrainLoader
from reid.errors import InputError
from reid.errors.command import run_command
from reid.losses.objective import LossWeights, Objective
from reid.model.backbones import build_backbone
from reid.model.backbones.osnet import VectorConv
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import build_eigenlayer
from reid.model.necks import build_neck
from reid.model.network import ReidNetwork
from reid.model.pooling import build_pooling
from reid.records import IMAGENET_MEAN, IMAGENET_STD
from reid.training.callbacks import Callbacks
from reid.training.epoch import EpochBatches, train_epoch
from reid.training.memory import keep_freed_memory
from reid.training.optimizer import Solver, make_optimizer
from reid.training.schedule import Schedule, StagePlan
from reid.training.state import TrainState

CLASSES, LEARNING_RATE = 751, 1.5e-3
DEFAULT = "default"
# The arguments `fused`, `products` and `kept` of `our_epoch`.
OURS = {
    DEFAULT: (True, True, True),
    "without the fused optimizer": (False, True, True),
    "without gates as products": (True, False, True),
    "without keeping freed memory": (True, True, False),
    "without all three": (False, False, False),
}


def main() -> None:
    parser = benchmark_parser(__doc__, batch=64, count=1280, threads=torch.get_num_threads(), rounds=5)
    parser.add_argument("--torchreid", type=Path)
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    from input import jpegs  # limits the threads of what is imported after it, and of new processes

    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.images, arguments.count, Path(folder))
        for size in map(tuple, arguments.size or [(128, 64), (256, 128)]):
            _compare(arguments, files, size, Path(folder))


def _compare(arguments: argparse.Namespace, files: list[str], size: tuple[int, int], cache: Path) -> None:
    decode_images(files, size=size, cache=cache)
    setting = (files, size, arguments.batch)
    rows: dict[str, tuple[Any, ...]] = {name: (our_epoch, *setting, cache, *on) for name, on in OURS.items()}
    if arguments.torchreid:
        rows["torchreid"] = (torchreid_epoch, arguments.torchreid, *setting)
    with _processes(rows, arguments.threads) as epochs:
        for warm_up in epochs.values():
            warm_up()
        waited: list[float] = []
        steps = {
            name: (lambda run=run, kept=waited if name == DEFAULT else []: kept.append(run()))
            for name, run in epochs.items()
        }
        seconds = in_rounds(steps, arguments.rounds)
    images = len(files) // arguments.batch * arguments.batch
    about = (
        f"OSNet-x0.25, {size[0]} x {size[1]}, batch {arguments.batch}, {images} images per epoch, {arguments.rounds} "
        f"rounds, {arguments.threads} threads; the default waited for data {sum(waited) / sum(seconds[DEFAULT]):.2%} "
        "of the time"
    )
    show(_rates(seconds, images), f"training_{size[0]}x{size[1]}", about, arguments.save)


def _rates(seconds: Mapping[str, list[float]], images: int) -> Iterator[dict[str, str]]:
    for name, taken in seconds.items():
        yield {
            "trainer": name,
            "images/s, median": f"{images / statistics.median(taken):.0f}",
            "best": f"{images / min(taken):.0f}",
            "time / default": f"{median_ratio(taken, seconds[DEFAULT]):.2f}",
        }


@contextlib.contextmanager
def _processes(rows: Mapping[str, tuple[Any, ...]], threads: int) -> Iterator[dict[str, Callable[[], float]]]:
    """Start a process for each row, and give the function that has it train an epoch, which returns what it waited."""
    context, pipes = get_context("spawn"), []
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    epochs: dict[str, Callable[[], float]] = {}
    for name, (prepare, *settings) in rows.items():
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, prepare, settings)).start()
        theirs.close()
        pipes.append(ours)

        def epoch(pipe: Connection = ours) -> float:
            pipe.send(True)
            return float(pipe.recv())

        epochs[name] = epoch
    try:
        yield epochs
    finally:
        for pipe in pipes:
            pipe.close()


def _serve(pipe: Connection, prepare: Callable[..., Callable[[], float]], settings: list[Any]) -> None:
    set_start_method("fork", force=True)  # for torchreid's workers, as in a program of its own
    run = prepare(*settings)
    with contextlib.suppress(EOFError):
        while pipe.recv():
            pipe.send(run())


def classes(files: list[str]) -> list[int]:
    """Assign a class to each file, as evenly as possible."""
    return [number % CLASSES for number in range(len(files))]


def our_epoch(
    files: list[str],
    size: tuple[int, int],
    batch: int,
    cache: Path,
    fused: bool,
    products: bool,
    kept: bool,
) -> Callable[[], float]:
    """Prepare an epoch of our trainer, which returns the seconds that it waited for batches."""
    if kept:
        keep_freed_memory()
    loader = TrainLoader(
        decode_images(files, size=size, cache=cache),
        np.array(classes(files), dtype=np.int64),
        batch,
        Augmentation(IMAGENET_MEAN, IMAGENET_STD, flip=0.5, pad=5, erasing=0.5),
        device="cpu",
    )
    backbone = build_backbone("osnet_x0_25")
    pooling = build_pooling("average", backbone)
    neck = build_neck("osnet_x0_25", pooling.width(backbone.out_channels))
    eigenlayer = build_eigenlayer(neck.out_features)
    classifier = build_classifier("linear", eigenlayer.out_features, CLASSES)
    model = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier)
    for module in model.modules():
        if isinstance(module, VectorConv) and not products:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    solver = Solver(optimizer="adam", amsgrad=True, fused=fused)
    objective = Objective(LossWeights(label_smoothing=0.1), num_classes=CLASSES)
    state = TrainState("ours", model, objective)
    optimizer = make_optimizer(state.model, solver, LEARNING_RATE)
    stage = StagePlan("step0", 0, Schedule(epochs=1, lr=(LEARNING_RATE,)))
    callbacks = Callbacks()

    def run() -> float:
        last, waited = time.perf_counter(), 0.0

        def on_phase_end(phase: str) -> None:
            nonlocal last, waited
            now = time.perf_counter()
            waited += (now - last) * (phase == "data")
            last = now

        callbacks.on_phase_end = on_phase_end  # type: ignore[method-assign]
        train_epoch(state, EpochBatches(loader, 0), optimizer, stage, solver, callbacks)
        return waited

    return run


def torchreid_epoch(clone: Path, files: list[str], size: tuple[int, int], batch: int) -> Callable[[], float]:
    """Prepare an epoch of torchreid's trainer, which does not say how long it waited."""
    sys.path.insert(0, str(clone))
    try:
        torchreid: Any = importlib.import_module("torchreid")
    except ImportError as error:
        raise InputError(f"{clone}: torchreid cannot be imported: {error}") from None
    labeled = [(path, label, 0) for path, label in zip(files, classes(files), strict=True)]

    class Ours(torchreid.data.ImageDataset):
        def __init__(self, root: str = "", **options: object) -> None:
            super().__init__(labeled, labeled[:1], [(labeled[0][0], labeled[0][1], 1)], **options)

    torchreid.data.register_image_dataset("ours", Ours)
    with contextlib.redirect_stdout(io.StringIO()):
        data = torchreid.data.ImageDataManager(
            sources="ours", height=size[0], width=size[1], transforms=["random_flip", "random_crop", "random_erase"],
            batch_size_train=batch, workers=2, use_gpu=False,
        )  # fmt: skip
        model = torchreid.models.build_model("osnet_x0_25", CLASSES, loss="softmax", pretrained=False, use_gpu=False)
    optimizer = torchreid.optim.build_optimizer(model, optim="amsgrad", lr=LEARNING_RATE)
    engine = torchreid.engine.ImageSoftmaxEngine(data, model, optimizer, use_gpu=False, label_smooth=True)
    engine.epoch, engine.max_epoch = 0, 1

    def run() -> float:
        engine.train(print_freq=sys.maxsize)
        return float("nan")

    return run


if __name__ == "__main__":
    raise SystemExit(run_command(main))
