"""P×K batches and mined tuples, compared with their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from reid.data.augmentation.augment import Augmentation
from reid.data.loading.loaders import TrainLoader
from reid.data.loading.samplers import Sampler, _nearest_of_each_identity, batch_count, identity_batches, mined_batches
from reid.errors import InputError


def labels_of(counts: list[int], seed: int = 0) -> Tensor:
    """Labels with the given counts, in random order."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def batches(labels: Tensor, size: int, instances: int, seed: int = 0) -> list[Tensor]:
    return list(identity_batches(labels, size, instances, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("counts", [[4, 4, 4], [9, 2, 7, 1, 5], [30, 1, 1, 1], [3] * 20], ids=str)
@pytest.mark.parametrize("instances", [2, 4])
def test_every_batch_has_p_identities_with_k_images(counts: list[int], instances: int) -> None:
    labels, people = labels_of(counts), 2
    sampled = batches(labels, people * instances, instances)
    assert len(sampled) == batch_count(Sampler("identity", instances=instances), labels, people * instances) > 0
    for batch in sampled:
        groups = labels[batch].view(people, instances)
        assert (groups == groups[:, :1]).all()
        assert len(groups[:, 0].unique()) == people


@pytest.mark.parametrize("counts", [[4, 4, 4], [9, 2, 7, 1, 5], [30, 1, 1, 1], [8, 8, 1], [2, 2, 2, 2]], ids=str)
@pytest.mark.parametrize("people", [2, 3])
def test_there_are_as_many_batches_as_possible(counts: list[int], people: int) -> None:
    """Compared with a search over all ways to choose identities."""

    def most(shares: tuple[int, ...]) -> int:
        present = [i for i, share in enumerate(shares) if share]
        if len(present) < people:
            return 0
        tried = {
            tuple(sorted(share - (i in chosen) for i, share in enumerate(shares)))
            for chosen in itertools.combinations(present, people)
        }
        return 1 + max(best(rest) for rest in tried)

    known: dict[tuple[int, ...], int] = {}

    def best(shares: tuple[int, ...]) -> int:
        if shares not in known:
            known[shares] = most(shares)
        return known[shares]

    shares = tuple(sorted(-(-count // 4) for count in counts))
    assert len(batches(labels_of(counts), 4 * people, 4)) == best(shares)


def test_an_image_is_repeated_only_if_its_identity_has_too_few() -> None:
    labels = labels_of([8, 8, 8, 3])
    seen = torch.cat(batches(labels, 8, 4))
    for identity, images in ((i, seen[labels[seen] == i].tolist()) for i in range(4)):
        if identity < 3:
            assert len(set(images)) == len(images)
        else:
            assert len(images) == 4 and len(set(images)) == 3


def test_the_order_follows_the_generator() -> None:
    labels = labels_of([8] * 6)
    first, again, other = (torch.cat(batches(labels, 8, 4, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def tuples(labels: Tensor, descriptors: Tensor, seed: int = 0, size: int = 8, negatives: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat(list(mined_batches(labels, descriptors, size, negatives, generator))).view(-1, 2 + negatives)


def test_tuples_are_an_anchor_a_match_and_the_nearest_of_the_other_identities() -> None:
    labels = labels_of([5, 4, 6, 1, 3, 2])
    descriptors = torch.randn(len(labels), 7, generator=torch.Generator().manual_seed(4))
    sampled = tuples(labels, descriptors)
    assert len(sampled) == 2 * (len(labels) // 8)
    for anchor, match, *rest in sampled.tolist():
        assert labels[anchor] == labels[match] and anchor != match
        nearest = {}
        for image in range(len(labels)):
            identity = int(labels[image])
            distance = (descriptors[anchor] - descriptors[image]).norm().item()
            if identity != labels[anchor] and distance < nearest.get(identity, (np.inf, 0))[0]:
                nearest[identity] = (distance, image)
        assert rest == [image for _, image in sorted(nearest.values())[:2]]


def test_the_nearest_of_an_identity_among_more_images_than_one_thread_sorts() -> None:
    """From 2^15 values on PyTorch divides an assignment among its threads, and the last to write is anyone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        labels = torch.arange(400_000) % 50
        (found,) = _nearest_of_each_identity(torch.arange(400_000.0)[:, None], torch.tensor([7]), labels, 50)
    finally:
        torch.set_num_threads(threads)
    assert sorted(found.tolist()) == [image for image in range(50) if image != 7]


def test_mining_follows_the_descriptors_and_the_seed() -> None:
    labels = labels_of([5] * 8)
    generator = torch.Generator().manual_seed(4)
    one, two = (torch.randn(40, 7, generator=generator) for _ in range(2))
    assert torch.equal(tuples(labels, one), tuples(labels, one))
    changed = tuples(labels, two)
    assert torch.equal(tuples(labels, one)[:, :2], changed[:, :2])
    assert not torch.equal(tuples(labels, one)[:, 2:], changed[:, 2:])
    assert not torch.equal(tuples(labels, one, seed=1), tuples(labels, one))


def test_anchors_are_only_images_that_have_a_match_each_as_often() -> None:
    labels = labels_of([1] * 30 + [2, 2])
    sampled = tuples(labels, torch.randn(34, 3, generator=torch.Generator().manual_seed(0)))
    anchors, times = sampled[:, 0].unique(return_counts=True)
    assert (labels[anchors] >= 30).all() and len(anchors) == 4 and times.max() == times.min() == 2


def loader(labels: Tensor, sampler: Sampler, size: int) -> TrainLoader:
    images = np.zeros((len(labels), 3, 4, 2), dtype=np.uint8)
    images[:, 0] = np.arange(len(labels), dtype=np.uint8)[:, None, None]
    zeros, ones = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    return TrainLoader(images, labels.numpy(), size, Augmentation(zeros, ones), "cpu", sampler)


def test_the_loader_follows_its_sampler() -> None:
    labels = labels_of([6] * 5)
    given = loader(labels, Sampler("identity", instances=3), 6)
    found = list(given.epoch(5))
    assert len(found) == len(given) == 5 and not given.needs_descriptors
    for images, own in found:
        assert (own.view(2, 3) == own.view(2, 3)[:, :1]).all()
        assert torch.equal(labels[images[:, 0, 0, 0].round().long()], own)
    mining = loader(labels, Sampler("mined", negatives=1), 6)
    assert mining.needs_descriptors and mining.sampler.tuple_size == 3
    with pytest.raises(ValueError, match="descriptors of all 30 training images, not of 0"):
        list(mining.epoch(0))
    descriptors = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    assert [len(own) for _, own in mining.epoch(0, descriptors)] == [6] * 5


@pytest.mark.parametrize(
    ("sampler", "size", "message"),
    [
        (Sampler("identity", instances=4), 24, "6 identities with 4 images each cannot be filled: there are 5"),
        (Sampler("identity", instances=4), 10, "10 is not a multiple of SAMPLER.INSTANCES 4"),
        (Sampler("mined", negatives=5), 14, "mining requires .* and 5 other identities; there are 5 training"),
        (Sampler("mined", negatives=1), 8, "8 is not a multiple of the tuple size 3"),
        (Sampler("mined", negatives=1), 33, "33 images in tuples of 3 cannot be filled: there are 30 training images"),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_filled_are_reported(sampler: Sampler, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loader(labels_of([6] * 5), sampler, size)


def test_mining_without_any_match_is_reported() -> None:
    with pytest.raises(InputError, match="0 of them with two images"):
        loader(labels_of([1] * 9), Sampler("mined", negatives=1), 3)
