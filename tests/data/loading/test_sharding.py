"""Shards of images and batches: together they are everything, once, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid.data.augmentation.augment import Augmentation
from reid.data.images.pixels import DecodedImages, ImageFiles, slice_images
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.samplers import Sampler
from reid.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 2), dtype=np.uint8)
LOOK = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "device": "cpu"}


def train_loader(batch: int, sampler: Sampler, count: int = 11) -> TrainLoader:
    labels = np.arange(count) % 3
    return TrainLoader(PIXELS[:count], labels, batch, Augmentation(LOOK["mean"], LOOK["std"], flip=0.5), "cpu", sampler)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_shards_of_a_gallery_are_its_batches(world: int) -> None:
    numbers = np.arange(11)
    whole = TestLoader(
        images=PIXELS, identities=numbers, cameras=numbers, paths=[str(n) for n in numbers], batch_size=3, **LOOK
    )
    shares = [whole.shard(rank, world) for rank in range(world)]
    given = [batch for share in shares for batch in share]
    assert all(torch.equal(a, b) for a, b in zip(given, whole, strict=True))
    assert [path for share in shares for path in share.paths] == whole.paths
    assert np.concatenate([share.identities for share in shares]).tolist() == numbers.tolist()
    part = whole.slice(2, 7)
    assert part.cameras.tolist() == [2, 3, 4, 5, 6] and torch.equal(torch.cat(list(part)), torch.cat(list(whole))[2:7])


@pytest.mark.parametrize("world", [1, 2, 5])
def test_parts_of_a_sample_are_its_batches(world: int) -> None:
    loader = train_loader(3, Sampler())
    parts = [list(loader.sample(10, 7, rank=rank, world=world)) for rank in range(world)]
    for (images, labels), (all_images, all_labels) in zip(
        [batch for part in parts for batch in part], loader.sample(10, 7), strict=True
    ):
        assert torch.equal(images, all_images) and torch.equal(labels, all_labels)


@pytest.mark.parametrize(
    ("loader", "world", "expected"),
    [
        (train_loader(5, Sampler()), 2, (2, 3)),
        (train_loader(64, Sampler()), 3, (3, 4, 4)),  # a set smaller than a batch
        (train_loader(9, Sampler("identity", instances=3)), 2, (3, 6)),
        (train_loader(8, Sampler("mined", negatives=2)), 2, (4, 4)),
    ],
)
def test_shard_sizes_are_those_of_the_batches(loader: TrainLoader, world: int, expected: tuple[int, ...]) -> None:
    assert loader.shard_sizes(world) == expected
    descriptors = torch.randn(11, 2) if loader.needs_descriptors else None
    for rank in range(world):
        sizes = {len(labels) for _, labels in loader.epoch(3, descriptors, rank=rank, world=world)}
        assert sizes == {expected[rank]}


def test_more_processes_than_groups() -> None:
    with pytest.raises(InputError, match="a batch of 9 images in groups of 3 cannot be split among 4"):
        train_loader(9, Sampler("identity", instances=3)).shard_sizes(4)


def test_corrupt_images_keep_their_position() -> None:
    part = slice_images(DecodedImages(PIXELS, {1: "a", 4: "b", 9: "c"}), 3, 9)
    assert isinstance(part, DecodedImages) and part.corrupt == {1: "b"} and len(part) == 6
    files = slice_images(ImageFiles(["a", "b", "c"], (4, 2)), 1, 3)
    assert isinstance(files, ImageFiles) and files.paths == ["b", "c"] and files.size == (4, 2)
