"""Batches depend on the seed, have the right labels, and leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.data.augmentation.augment import Augmentation
from reid.data.augmentation.jitter import Jitter
from reid.data.images.normalization import normalize
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.data.loading.prefetch import prefetch
from reid.data.loading.samplers import Sampler
from reid.errors import InputError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PLAIN = Augmentation(MEAN, STD)
ALL_STEPS = Augmentation(
    MEAN, STD, flip=0.5, pad=2, erasing=0.5, jitter=Jitter(0.3, 0.3, 0.3, 0.1), policy="randaugment"
)


def numbered(count: int = 23) -> np.ndarray:
    """Image i is filled with i, so that the images of a batch can be identified."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, 3, 8, 4)).copy()


def train_loader(images: np.ndarray | None = None, **options) -> TrainLoader:
    images = numbered() if images is None else images
    settings = {"batch_size": 5, "augmentation": PLAIN, "device": "cpu"}
    return TrainLoader(images, np.arange(len(images), dtype=np.int64), **{**settings, **options})


def held(batch: torch.Tensor) -> list[int]:
    return ((batch[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long().tolist()


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_an_epoch_shows_each_image_once_with_its_label():
    loader = train_loader()
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 4  # 23 images, the last 3 dropped
    for images, labels in batches:
        assert images.shape == (5, 3, 8, 4) and images.dtype == torch.float32 and labels.dtype == torch.int64
        assert held(images) == labels.tolist()
    seen = [label for _, labels in batches for label in labels.tolist()]
    assert len(set(seen)) == 20 and seen != sorted(seen)


def test_an_epoch_depends_on_its_seed_alone():
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 8), dtype=np.uint8)
    loader = train_loader(images, augmentation=replace(PLAIN, flip=0.5, pad=2, erasing=0.5))

    def epoch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = zip(*loader.epoch(seed), strict=True)
        return torch.stack(images), torch.stack(labels)

    first = epoch(7)
    torch.manual_seed(123)  # the global state has no say, and is not touched
    state = torch.get_rng_state()
    again, other = epoch(7), epoch(8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_fewer_images_than_a_batch_make_one_batch():
    loader = train_loader(numbered(3))
    assert len(loader) == 1 and [len(labels) for _, labels in loader.epoch(0)] == [3]


def test_the_sample_is_fixed_and_not_augmented():
    loader = train_loader(augmentation=replace(PLAIN, flip=1.0, pad=4, erasing=1.0))
    first, again = list(loader.sample(12, seed=1)), list(loader.sample(12, seed=1))
    assert [len(labels) for _, labels in first] == [5, 5, 2]
    for (images, labels), (same, _) in zip(first, again, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(images, normalize(torch.from_numpy(loader.images[labels.numpy()]), MEAN, STD))
    chosen = {label for _, labels in first for label in labels.tolist()}
    assert len(chosen) == 12 and chosen != {
        label for _, labels in loader.sample(12, seed=2) for label in labels.tolist()
    }
    assert sum(len(labels) for _, labels in loader.sample(1000, seed=1)) == 23


def test_an_abandoned_epoch_ends_its_thread():
    epoch = train_loader(numbered(200)).epoch(0)
    assert not prefetch_threads()
    next(epoch)
    assert len(prefetch_threads()) == 1
    epoch.close()  # type: ignore[attr-defined]
    assert not prefetch_threads()


def test_the_thread_does_not_change_the_thread_count_of_others():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in train_loader().epoch(0):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_the_thread_reaches_the_caller():
    def produce() -> Iterator[int]:
        yield 1
        raise InputError("a broken image")

    items = prefetch(produce)
    assert next(items) == 1
    with pytest.raises(InputError, match="a broken image"):
        next(items)
    assert not prefetch_threads()


def test_one_item_is_made_in_advance_and_no_more():
    made: list[int] = []
    second = threading.Event()

    def produce() -> Iterator[int]:
        for item in range(10):
            made.append(item)
            if item == 1:
                second.set()
            yield item

    items = prefetch(produce)
    assert next(items) == 0
    assert second.wait(timeout=10)  # made while nobody asked for it
    assert list(items) == list(range(1, 10)) and made == list(range(10))


def test_test_images_come_in_order_and_unchanged(tmp_path):
    np.save(tmp_path / "images.npy", numbered())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    labels = np.arange(23, dtype=np.int64)
    loader = TestLoader(mapped, labels, labels, tuple(map(str, labels)), 10, MEAN, STD, "cpu")
    batches = list(loader)
    assert [len(batch) for batch in batches] == [10, 10, 3] and len(loader) == 3
    assert torch.equal(torch.cat(batches), normalize(torch.from_numpy(numbered()), MEAN, STD))
    assert torch.equal(torch.cat(list(loader)), torch.cat(batches))


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 16, 8), dtype=np.uint8)


@pytest.mark.parametrize("name", ["shuffled", "identity", "mined"])
@pytest.mark.parametrize("world", [2, 3])
def test_shards_of_all_processes_are_the_batches_of_one(name, world):
    labels = np.arange(40, dtype=np.int64) % 14  # some identities have 2 images, for shares of 4
    descriptors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) if name == "mined" else None
    sampler = Sampler(name, instances=4, negatives=2)
    loader = TrainLoader(noise(40), labels, 12, ALL_STEPS, "cpu", sampler)
    alone = list(loader.epoch(4, descriptors))
    shares = [list(loader.epoch(4, descriptors, rank=rank, world=world)) for rank in range(world)]
    assert len(alone) == len(loader) > 1
    for number, (images, own) in enumerate(alone):
        parts = [batches[number] for batches in shares]
        assert torch.equal(torch.cat([part for part, _ in parts]), images)
        assert torch.equal(torch.cat([part for _, part in parts]), own)
        assert all(len(part) % sampler.group == 0 and len(part) for part, _ in parts)


def test_augmentation_does_not_depend_on_batch_size_and_order():
    small, large = ({}, {})
    for found, size in ((small, 4), (large, 20)):
        loader = train_loader(noise(40), batch_size=size, augmentation=ALL_STEPS)
        for images, labels in loader.epoch(9):
            found |= dict(zip(labels.tolist(), images, strict=True))
    assert len(small) == len(large) == 40
    assert all(torch.equal(small[number], large[number]) for number in small)


def test_an_image_seen_twice_is_augmented_differently():
    loader = TrainLoader(noise(4), np.arange(4) // 2, 8, replace(ALL_STEPS, flip=0.0), "cpu", Sampler("identity"))
    ((images, _),) = loader.epoch(0)
    assert len({tuple(image.flatten().tolist()) for image in images}) == 8


@pytest.mark.parametrize("name", ["shuffled", "identity"])
def test_an_epoch_can_be_resumed_at_any_batch(name):
    paths = [f"{number}.jpg" for number in range(30)]
    loader = TrainLoader(noise(30), np.arange(30) % 7, 8, ALL_STEPS, "cpu", Sampler(name), paths)
    whole = list(loader.epoch(3))
    for (images, labels), (others, same) in zip(whole[2:], loader.epoch(3, start=2), strict=True):
        assert torch.equal(images, others) and torch.equal(labels, same)
    for number, (_, labels) in enumerate(whole):
        files = loader.batch_paths(3, number)
        assert [int(file[:-4]) % 7 for file in files] == labels.tolist()
        assert loader.batch_paths(3, number, rank=0, world=2) + loader.batch_paths(3, number, rank=1, world=2) == files


def test_more_processes_than_groups_are_refused():
    with pytest.raises(InputError, match="a batch of 5 images in groups of 1 cannot be split among 6"):
        list(train_loader().epoch(0, rank=0, world=6))
    with pytest.raises(ValueError, match=r"rank 2 is not in \[0, 1\]"):
        list(train_loader().epoch(0, rank=2, world=2))


def test_inconsistent_arguments_are_refused():
    with pytest.raises(InputError, match="uint8"):
        train_loader(numbered().astype(np.float32))
    with pytest.raises(InputError, match="23 images need as many int64 labels, not int64"):
        TrainLoader(numbered(), np.arange(22), 5, PLAIN, "cpu")
    with pytest.raises(InputError, match="batch size 0"):
        train_loader(batch_size=0)
    with pytest.raises(InputError, match="no training image"):
        train_loader(numbered(0))
    with pytest.raises(InputError, match="23 images with 22 identities"):
        TestLoader(numbered(), np.arange(22), np.arange(23), [""] * 23, 5, MEAN, STD, "cpu")
