"""Training speed in images per second, compared with torchreid's trainer on the same images, batch and network.

    python benchmarks/training.py [--torchreid CLONE] [--size 128 64] [--count 1280] [--rounds 5] [--images FOLDER]

OSNet-x0.25 from random weights, flip, pad-crop and random erasing, AMSGrad, label smoothing, 751 classes, float32; a
round is one epoch of each, with all threads. Ours reads its decoded cache; torchreid's DataLoader uses two workers,
which its trainer starts every epoch. The whole of torchreid is imported, with its dependencies such as opencv-python,
h5py and gdown. A ratio is the median over rounds of torchreid's time divided by ours in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from input import BATCH, jpegs
from measuring import in_rounds, median_ratio

from reid.data.augmentation.augment import Augmentation
from reid.data.images.cache import decode_images
from reid.data.loading.loaders import TrainLoader
from reid.errors import InputError
from reid.errors.command import run_command
from reid.losses.objective import LossWeights, Objective
from reid.model.backbones import build_backbone
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import build_eigenlayer
from reid.model.necks import build_neck
from reid.model.network import ReidNetwork
from reid.model.pooling import build_pooling
from reid.records import IMAGENET_MEAN, IMAGENET_STD
from reid.training.callbacks import Callbacks
from reid.training.epoch import EpochBatches, train_epoch
from reid.training.optimizer import Solver, make_optimizer
from reid.training.schedule import Schedule, StagePlan
from reid.training.state import TrainState

CLASSES, LEARNING_RATE = 751, 1.5e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchreid", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--count", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    size = tuple(arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.images, arguments.count, Path(folder))
        waited: list[float] = []
        epochs = {"ours": our_epoch(files, size, Path(folder), waited)}
        if arguments.torchreid:
            epochs["torchreid"] = torchreid_epoch(arguments.torchreid, files, size)
        for warm_up in epochs.values():
            warm_up()
        waited.clear()
        seconds = in_rounds(epochs, arguments.rounds)
    images = len(files) // BATCH * BATCH
    print(
        f"OSNet-x0.25, {size[0]} x {size[1]}, batch {BATCH}, {images} images per epoch, {arguments.rounds} rounds, "
        f"{torch.get_num_threads()} threads\n\n| trainer | images/s, median | best | time / ours |\n|---|---|---|---|"
    )
    for name, taken in seconds.items():
        ratio = median_ratio(taken, seconds["ours"])
        print(f"| {name} | {images / statistics.median(taken):.0f} | {images / min(taken):.0f} | {ratio:.2f} |")
    print(f"\nours waited for data {sum(waited) / sum(seconds['ours']):.2%} of the time")


def classes(files: list[str]) -> list[int]:
    """Assign a class to each file, as evenly as possible."""
    return [number % CLASSES for number in range(len(files))]


def our_epoch(files: list[str], size: tuple[int, int], cache: Path, waited: list[float]) -> Callable[[], None]:
    """Prepare an epoch of our trainer; appends the seconds of every wait for a batch to `waited`."""
    loader = TrainLoader(
        decode_images(files, size=size, cache=cache),
        np.array(classes(files), dtype=np.int64),
        BATCH,
        Augmentation(IMAGENET_MEAN, IMAGENET_STD, flip=0.5, pad=5, erasing=0.5),
        device="cpu",
    )
    backbone = build_backbone("osnet_x0_25")
    pooling = build_pooling("average", backbone)
    neck = build_neck("osnet_x0_25", pooling.width(backbone.out_channels))
    eigenlayer = build_eigenlayer(neck.out_features)
    classifier = build_classifier("linear", eigenlayer.out_features, CLASSES)
    model = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier)
    solver = Solver(optimizer="adam", amsgrad=True)
    objective = Objective(LossWeights(label_smoothing=0.1), num_classes=CLASSES)
    state = TrainState("ours", model, objective)
    optimizer = make_optimizer(state.model, solver, LEARNING_RATE)
    stage = StagePlan("step0", 0, Schedule(epochs=1, lr=(LEARNING_RATE,)))
    callbacks = Callbacks()

    def run() -> None:
        last = time.perf_counter()

        def on_phase_end(phase: str) -> None:
            nonlocal last
            now = time.perf_counter()
            if phase == "data":
                waited.append(now - last)
            last = now

        callbacks.on_phase_end = on_phase_end  # type: ignore[method-assign]
        train_epoch(state, EpochBatches(loader, 0), optimizer, stage, solver, callbacks)

    return run


def torchreid_epoch(clone: Path, files: list[str], size: tuple[int, int]) -> Callable[[], None]:
    """Prepare an epoch of torchreid's trainer."""
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
            batch_size_train=BATCH, workers=2, use_gpu=False,
        )  # fmt: skip
        model = torchreid.models.build_model("osnet_x0_25", CLASSES, loss="softmax", pretrained=False, use_gpu=False)
    optimizer = torchreid.optim.build_optimizer(model, optim="amsgrad", lr=LEARNING_RATE)
    engine = torchreid.engine.ImageSoftmaxEngine(data, model, optimizer, use_gpu=False, label_smooth=True)
    engine.epoch, engine.max_epoch = 0, 1
    return lambda: engine.train(print_freq=sys.maxsize)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
