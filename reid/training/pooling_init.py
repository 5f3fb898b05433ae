"""Initialization of the pooling from the training set, before Step 0."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from reid.data.loading.loaders import TrainLoader
from reid.distributed import broadcast_tensors, is_main_process
from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.training.epoch import evaluation_mode
from reid.training.optimizer import set_training_mode
from reid.training.seeding import seed_from

MAX_PER_IMAGE = 100  # local descriptors; neighboring ones are alike, so more images are better


def check_pooling(model: ReidNetwork, loader: TrainLoader) -> None:
    """Check that the training set suffices for the pooling.

    Args:
        model: The network.
        loader: The training data.

    Raises:
        InputError: If the map is too small, or there are fewer local descriptors than clusters.
    """
    height, width = _map_size(model, loader)
    model.pooling.check_map(height, width)
    needed, positions = model.pooling.min_descriptors, height * width
    images = _image_count(loader, math.ceil(needed / positions), seed=0)
    if needed > images * positions:
        raise InputError(
            f"k-means needs at least {needed} local descriptors, but {images} training images of "
            f"{height} x {width} positions provide {images * positions}; use fewer clusters, or larger or more images"
        )


def initialize_pooling(
    model: ReidNetwork,
    loader: TrainLoader,
    *,
    seed: int,
    norm_statistics: str = "running",
    descriptors: int = 50_000,
) -> None:
    """Initialize the pooling from local descriptors of the training set, if it needs them.

    The descriptors come from random positions of random training images without augmentation. The backbone computes
    them as the first training step will and is left as it was. The main process computes the clusters.

    Args:
        model: Changed in place.
        loader: The training data.
        seed: Decides images, positions and clusters.
        norm_statistics: "running" for batch statistics, or "frozen".
        descriptors: Largest number of descriptors.

    Raises:
        InputError: As `check_pooling`.
    """
    if not model.pooling.min_descriptors:
        return
    if is_main_process():
        check_pooling(model, loader)
    # On every process, since synchronized batch statistics are waited for by all.
    sampled = _local_descriptors(model, loader, descriptors, seed_from(seed, "descriptors"), norm_statistics)
    if is_main_process():
        model.pooling.initialize(sampled, seed=seed_from(seed, "clusters"))
    broadcast_tensors(model.state_dict().values())


@torch.no_grad()
def _local_descriptors(
    model: ReidNetwork, loader: TrainLoader, count: int, seed: int, norm_statistics: str
) -> np.ndarray:
    height, width = _map_size(model, loader)
    positions = height * width
    requested = math.ceil(count / min(positions, MAX_PER_IMAGE))
    images = _image_count(loader, requested, seed)
    per_image = min(positions, math.ceil(count / images))
    trunk = copy.deepcopy(model.backbone)  # batch statistics of the original stay untouched
    set_training_mode(trunk, norm_statistics)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for batch, _ in loader.sample(requested, seed):
        columns = _maps(trunk, batch).float().flatten(2).cpu()
        for image in columns:
            parts.append(image[:, torch.randperm(positions, generator=generator)[:per_image]].T)
    return torch.cat(parts)[:count].contiguous().numpy()


def _maps(trunk: torch.nn.Module, images: Tensor) -> Tensor:
    return trunk(images.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def _map_size(model: ReidNetwork, loader: TrainLoader) -> tuple[int, int]:
    images, _ = next(iter(loader.sample(1, 0)))
    with evaluation_mode(model):
        height, width = _maps(model.backbone, images[:1]).shape[2:]
    return height, width


def _image_count(loader: TrainLoader, requested: int, seed: int) -> int:
    """Number of images that `loader.sample` yields."""
    return sum(len(labels) for _, labels in loader.sample(requested, seed))
