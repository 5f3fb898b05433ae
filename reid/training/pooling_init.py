"""Before Step 0: whether the data can feed the pooling, and where its clusters start."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from reid.distributed import broadcast_tensors, is_main_process
from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.training.epoch import evaluation_mode
from reid.training.optimizer import set_training_mode
from reid.training.seeding import seed_from
from reid.training.state import Batches

DESCRIPTORS = 50_000
PER_IMAGE = 100  # places of an image at most while there are images enough; neighboring places resemble each other


def check_pooling(model: ReidNetwork, loader: Batches) -> None:
    """Find a map too small or images too few for the pooling before hours of training. Raises InputError."""
    height, width = _map_size(model, loader)
    model.pooling.check_map(height, width)
    needed, places = model.pooling.least_descriptors, height * width
    images = _image_count(loader, math.ceil(needed / places), seed=0)
    if needed > images * places:
        raise InputError(
            f"k-means for {needed} clusters needs as many local descriptors, and {images} training images of "
            f"{height} x {width} places have {images * places}: take fewer clusters, or larger or more images"
        )


def initialize_pooling(
    model: ReidNetwork,
    loader: Batches,
    *,
    seed: int,
    norm_statistics: str = "running",
    descriptors: int = DESCRIPTORS,
) -> None:
    """Start the pooling from local descriptors of the training set, where it asks for them.

    descriptors: how many at most, (N, C) float32 from places drawn by `seed` in unaugmented training images drawn by
    `seed`. The backbone computes them as the first training step will, batch statistics where `norm_statistics` is
    "running", and is left as it was. Of several processes the first does all that. Raises InputError as
    `check_pooling` does.
    """
    if not model.pooling.least_descriptors:
        return
    if is_main_process():
        check_pooling(model, loader)
        drawn = _local_descriptors(model, loader, descriptors, seed_from(seed, "descriptors"), norm_statistics)
        model.pooling.initialize(drawn, seed=seed_from(seed, "clusters"))
    broadcast_tensors(model.state_dict().values())


@torch.no_grad()
def _local_descriptors(model: ReidNetwork, loader: Batches, count: int, seed: int, norm_statistics: str) -> np.ndarray:
    height, width = _map_size(model, loader)
    places = height * width
    wanted = math.ceil(count / min(places, PER_IMAGE))
    images = _image_count(loader, wanted, seed)
    per_image = min(places, math.ceil(count / images))
    trunk = copy.deepcopy(model.backbone)  # batch statistics of the original stay untouched
    set_training_mode(trunk, norm_statistics)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for batch, _ in tqdm(loader.sample(wanted, seed), desc="descriptors", unit="batch", leave=False, mininterval=1.0):
        columns = _maps(trunk, batch).float().flatten(2).cpu()
        for image in columns:
            parts.append(image[:, torch.randperm(places, generator=generator)[:per_image]].T)
    return torch.cat(parts)[:count].contiguous().numpy()


def _maps(trunk: torch.nn.Module, images: Tensor) -> Tensor:
    return trunk(images.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def _map_size(model: ReidNetwork, loader: Batches) -> tuple[int, int]:
    images, _ = next(iter(loader.sample(1, 0)))
    with evaluation_mode(model):
        height, width = _maps(model.backbone, images[:1]).shape[2:]
    return height, width


def _image_count(loader: Batches, wanted: int, seed: int) -> int:
    """How many images `loader.sample` gives of as many as wanted."""
    return sum(len(labels) for _, labels in loader.sample(wanted, seed))
