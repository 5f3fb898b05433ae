"""Device, dataset and loaders of a configuration; part of `reid.config.build`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from reid.config.records import record_from
from reid.data.augmentation.augment import Augmentation
from reid.data.augmentation.jitter import Jitter
from reid.data.datasets import DATASETS
from reid.data.datasets.combine import combine
from reid.data.datasets.label_checks import check_labels
from reid.data.datasets.market1501 import read_hand_labeled_boxes
from reid.data.datasets.pattern import compile_pattern
from reid.data.datasets.subset import hold_out_identities, subset_identities
from reid.data.images.cache import decode_images
from reid.data.images.pixels import DecodedImages, ImageFiles, move_to_device
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.samplers import Sampler
from reid.data.loading.whole_images import WholeImage, WholeImageLoader
from reid.distributed import process_info
from reid.errors import InputError
from reid.records import ImageRecord, Split
from reid.threads import thread_limit


@dataclass(frozen=True)
class Loaders:
    """Loaders of the three splits of a dataset.

    Attributes:
        train: Shuffled, augmented training images with class labels.
        query: Query images in their order, not augmented.
        gallery: Gallery images in their order, not augmented.
    """

    train: TrainLoader
    query: TestLoader
    gallery: TestLoader


def device(config: CfgNode) -> torch.device:
    """Select the device of MODEL.DEVICE; with several processes on a host, each gets its own GPU.

    Args:
        config: Frozen configuration; reads MODEL.DEVICE.

    Returns:
        A CPU or CUDA device.

    Raises:
        InputError: If the device is unknown, unsupported or unavailable.
    """
    name, here = config.MODEL.DEVICE, process_info()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and here.world_size > 1:
        name = f"cuda:{here.local_rank}"
    try:
        selected = torch.device(name)
    except RuntimeError:
        raise InputError(f"MODEL.DEVICE {name!r}: unknown device; use auto, cpu, cuda or cuda:N") from None
    if selected.type == "cuda" and (selected.index or 0) >= torch.cuda.device_count():
        raise InputError(f"MODEL.DEVICE {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if selected.type == "cuda" and here.local_world_size > 1 and selected.index != here.local_rank:
        raise InputError(
            f"MODEL.DEVICE {name!r}: each of the {here.local_world_size} processes on this host needs its own GPU; "
            "use cuda"
        )
    if selected.type not in ("cpu", "cuda"):
        raise InputError(f"MODEL.DEVICE {name!r}: unsupported; use auto, cpu, cuda or cuda:N")
    return selected


def _cache_folder(config: CfgNode) -> Path:
    """Locate the folder of unpacked archives and decoded images.

    Args:
        config: Frozen configuration; reads DATASETS.CACHE.

    Returns:
        DATASETS.CACHE, else the environment variable REID_CACHE, else `~/.cache/reid`.
    """
    return Path(config.DATASETS.CACHE or os.environ.get("REID_CACHE") or "~/.cache/reid").expanduser()


def split(config: CfgNode) -> Split:
    """Read the datasets of DATASETS.NAME, to be tested on DATASETS.TARGET.

    Args:
        config: Frozen configuration; reads DATASETS.

    Returns:
        The combined split, with the fraction DATASETS.IDENTITIES of the training identities, and tested on the fraction
        DATASETS.VALIDATION of these if it is not 0.

    Raises:
        InputError: If a dataset is missing or unreadable, its counts are not the official ones, or more than
            DATASETS.TOLERANCE of its labels are doubtful.
    """
    d = config.DATASETS
    names = d.NAME.split("+")
    options = {name: _reader_options(d, name) for name in (*names, _target(config))}

    def read(name: str) -> Split:
        root = Path(d.FOLDER_ROOT).expanduser() if name == "folder" and d.FOLDER_ROOT else _root(config)
        return DATASETS[name](root, strict=d.STRICT, cache=_cache_folder(config), **options[name])

    combined = combine(names, d.TARGET, read)
    check_labels(combined, d.TOLERANCE)
    return hold_out_identities(subset_identities(combined, d.IDENTITIES), d.VALIDATION)


def loaders(config: CfgNode, data: Split) -> Loaders:
    """Build the loaders of all three splits.

    Args:
        config: Frozen configuration; reads DATASETS, INPUT, SAMPLER, SOLVER, TEST and MODEL.DEVICE.
        data: Dataset returned by `split`.

    Returns:
        Loaders of training, query and gallery images.

    Raises:
        InputError: If `train_loader` raises it.
    """
    # In this order, so that too few identities are reported before images are decoded.
    return Loaders(train_loader(config, data), test_loader(config, data.query), test_loader(config, data.gallery))


def train_loader(config: CfgNode, data: Split) -> TrainLoader:
    """Build the loader of the training images.

    Args:
        config: Frozen configuration; reads DATASETS, INPUT, SAMPLER, SOLVER.BATCH_SIZE and MODEL.DEVICE.
        data: Dataset returned by `split`; its training images are used.

    Returns:
        Loader with class labels 0..n-1.

    Raises:
        InputError: If there is only one identity, an image cannot be read and INPUT.CORRUPT is "error", or no batch
            can be filled.
    """
    labels = data.train_labels()
    if len(labels) < 2:
        raise InputError(f"{data.name}: only 1 training identity; at least 2 are required")
    return TrainLoader(
        images=_train_images(config, data.train),
        labels=np.array([labels[image.identity] for image in data.train], dtype=np.int64),
        batch_size=config.SOLVER.BATCH_SIZE,
        augmentation=record_from(config.INPUT, Augmentation, jitter=record_from(config.INPUT.JITTER, Jitter)),
        device=device(config),
        sampler=sampler(config),
        paths=tuple(image.path for image in data.train),
        on_corrupt=config.INPUT.CORRUPT,
    )


def sampler(config: CfgNode) -> Sampler:
    """Build the sampler of training batches.

    Args:
        config: Frozen configuration; reads SAMPLER.

    Returns:
        Settings of the sampler.
    """
    return record_from(config.SAMPLER, Sampler)


def test_loader(config: CfgNode, images: tuple[ImageRecord, ...]) -> TestLoader:
    """Build a loader of query or gallery images.

    Args:
        config: Frozen configuration; reads DATASETS, INPUT, TEST.BATCH_SIZE and MODEL.DEVICE.
        images: Images, whose order is kept.

    Returns:
        Loader with identities and cameras.

    Raises:
        InputError: If an image cannot be read.
    """
    return TestLoader(
        images=_images(config, images),
        identities=np.array([image.identity for image in images], dtype=np.int64),
        cameras=np.array([image.camera for image in images], dtype=np.int64),
        paths=tuple(image.path for image in images),
        batch_size=config.TEST.BATCH_SIZE,
        mean=tuple(config.INPUT.MEAN),
        std=tuple(config.INPUT.STD),
        device=device(config),
    )


def whole_loader(
    config: CfgNode, images: Sequence[WholeImage], *, longest_side: int, batch_size: int
) -> WholeImageLoader:
    """Build a loader of whole images, normalized as in training.

    Args:
        config: Frozen configuration; reads INPUT.MEAN, INPUT.STD and MODEL.DEVICE.
        images: Images, whose order is kept.
        longest_side: Pixels that larger images are reduced to.
        batch_size: Maximum number of images per batch.

    Returns:
        Loader of batches of equally sized images.
    """
    return WholeImageLoader(
        images,
        mean=tuple(config.INPUT.MEAN),
        std=tuple(config.INPUT.STD),
        device=device(config),
        longest_side=longest_side,
        batch_size=batch_size,
    )


def pool_loader(config: CfgNode, data: Split) -> TestLoader | None:
    """Build a loader of the hand-labeled boxes of the query identities under the query cameras.

    Args:
        config: Frozen configuration; reads DATASETS, INPUT, TEST.BATCH_SIZE and MODEL.DEVICE.
        data: Dataset whose queries select the boxes.

    Returns:
        Loader of the boxes; None if the dataset has none.

    Raises:
        InputError: If the boxes cannot be read.
    """
    if not _target(config).startswith("market1501"):
        return None
    queries = {(image.identity, image.camera) for image in data.query}
    boxes = read_hand_labeled_boxes(_root(config), cache=_cache_folder(config))
    images = tuple(image for image in boxes if (image.identity, image.camera) in queries)
    return test_loader(config, images) if images else None


def preprocessing(config: CfgNode) -> dict[str, Any]:
    """Describe the preprocessing of an image before the network.

    Args:
        config: Frozen configuration; reads INPUT.

    Returns:
        `size` (height, width), `resize` (the filter), and `mean` and `std` of RGB in [0, 1].
    """
    settings = config.INPUT
    return {
        "size": tuple(settings.SIZE),
        "resize": settings.RESIZE,
        "mean": tuple(settings.MEAN),
        "std": tuple(settings.STD),
    }


def _target(config: CfgNode) -> str:
    """The dataset whose query and gallery are used."""
    return config.DATASETS.TARGET or config.DATASETS.NAME.split("+")[0]


def _root(config: CfgNode) -> Path:
    return Path(config.DATASETS.ROOT or os.environ.get("REID_DATA") or "datasets").expanduser()


def _reader_options(datasets: CfgNode, name: str) -> dict[str, Any]:
    """Arguments of a dataset's reader in addition to those that all readers take."""
    if name == "synthetic":
        synthetic = datasets.SYNTHETIC
        return {"size": synthetic.SIZE, "layout": synthetic.LAYOUT, "seed": synthetic.SEED}
    if name == "cuhk01":
        return {"seed": datasets.SPLIT_SEED}
    if name == "folder":
        compile_pattern(datasets.PATTERN)
        return {"pattern": datasets.PATTERN, "test": datasets.FOLDER_TEST, "seed": datasets.SPLIT_SEED}
    return {}


def _train_images(config: CfgNode, images: tuple[ImageRecord, ...]) -> DecodedImages | ImageFiles:
    """Training images, on the device if they fit; unreadable ones are recorded if they are to be skipped."""
    pixels = _images(config, images, {} if config.INPUT.CORRUPT == "skip" else None)
    return (
        pixels if isinstance(pixels, ImageFiles) else move_to_device(pixels, device(config), config.INPUT.DEVICE_CACHE)
    )


def _images(
    config: CfgNode, images: tuple[ImageRecord, ...], corrupt: dict[int, str] | None = None
) -> DecodedImages | ImageFiles:
    """Images at INPUT.SIZE, decoded now or, with INPUT.CACHE off, each time they are used."""
    height, width = config.INPUT.SIZE
    paths = [image.path for image in images]
    if config.INPUT.CACHE == "off":
        threads, processes = config.INPUT.THREADS, process_info().local_world_size
        if not threads and processes > 1:  # torchrun lets PyTorch have one
            threads = config.THREADS or thread_limit(processes)
        return ImageFiles(paths, (height, width), threads, config.INPUT.RESIZE)
    options: dict[str, Any] = {"size": (height, width), "resize": config.INPUT.RESIZE, "cache": _cache_folder(config)}
    return DecodedImages(decode_images(paths, **options, corrupt=corrupt), corrupt or {})
