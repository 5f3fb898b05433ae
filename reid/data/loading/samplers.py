"""Samplers: the composition and order of training batches, and their split among processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.errors import InputError


@dataclass(frozen=True)
class Sampler:
    """How training batches are composed.

    Attributes:
        name: "shuffled": every image once; "identity": P identities with `instances` images each; "mined": tuples of
            an anchor, a match and the `negatives` hardest images of other identities.
        instances: Images per identity of "identity".
        negatives: Negatives per tuple of "mined".
    """

    name: str = "shuffled"
    instances: int = 4
    negatives: int = 2

    @property
    def tuple_size(self) -> int:
        """Images per tuple of "mined", 0 for other samplers."""
        return 2 + self.negatives if self.name == "mined" else 0

    @property
    def group(self) -> int:
        """Number of consecutive images of a batch that may not be separated."""
        return {"identity": self.instances, "mined": self.tuple_size}.get(self.name, 1)


def shard_batch(index: Tensor, group: int, rank: int, world: int) -> Tensor:
    """Select the part of a batch that one process computes: consecutive groups, as evenly as possible.

    Args:
        index: (B,) int64 image indices.
        group: Number of consecutive images that may not be separated.
        rank: Rank of the process.
        world: Number of processes.

    Returns:
        Its part of `index`; all parts in the order of the ranks are `index`.

    Raises:
        InputError: If there are fewer groups than processes.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not in [0, {world - 1}]")
    groups = -(-len(index) // group)
    if groups < world:
        raise InputError(
            f"a batch of {len(index)} images in groups of {group} cannot be split among {world} processes; "
            "raise SOLVER.BATCH_SIZE or start fewer processes"
        )
    first, last = (len(index) if part == world else part * groups // world * group for part in (rank, rank + 1))
    return index[first:last]


def batch_count(sampler: Sampler, labels: Tensor, batch_size: int) -> int:
    """Count the batches of one epoch.

    Args:
        sampler: How batches are composed.
        labels: (N,) int64.
        batch_size: Images per batch.

    Returns:
        At least 1.

    Raises:
        InputError: If the batch size does not suit the sampler or the images cannot fill a single batch.
    """
    if sampler.name == "identity":
        if batch_size % sampler.instances:
            raise InputError(
                f"SOLVER.BATCH_SIZE {batch_size} is not a multiple of SAMPLER.INSTANCES {sampler.instances}"
            )
        per_batch, present = batch_size // sampler.instances, len(labels.unique())
        if per_batch > present:
            raise InputError(
                f"a batch of {per_batch} identities with {sampler.instances} images each cannot be filled: there are "
                f"{present} training identities; lower SOLVER.BATCH_SIZE or raise SAMPLER.INSTANCES"
            )
        return _full_batches(_group_counts(labels, sampler.instances)[1], per_batch)
    if sampler.name == "mined":
        _, counts = labels.unique(return_counts=True)
        if batch_size % sampler.tuple_size:
            raise InputError(f"SOLVER.BATCH_SIZE {batch_size} is not a multiple of the tuple size {sampler.tuple_size}")
        if not (counts > 1).any() or len(counts) <= sampler.negatives:
            raise InputError(
                f"mining requires an identity with two images and {sampler.negatives} other identities; there are "
                f"{len(counts)} training identities, {int((counts > 1).sum())} of them with two images"
            )
        if batch_size > len(labels):
            raise InputError(
                f"a batch of {batch_size} images in tuples of {sampler.tuple_size} cannot be filled: there are "
                f"{len(labels)} training images; lower SOLVER.BATCH_SIZE"
            )
    return max(1, len(labels) // batch_size)


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield all images in random order.

    The incomplete last batch is dropped, as a few images give poor BatchNorm statistics, unless it is the only one.

    Args:
        count: Number of images.
        batch_size: Images per batch.
        generator: Random generator on the CPU; its state advances.

    Yields:
        (batch_size,) int64 image indices.
    """
    order = torch.randperm(count, generator=generator)
    if count < batch_size:
        batches = [order] if count else []
    else:
        batches = list(order[: count - count % batch_size].split(batch_size))
    yield from batches


def identity_batches(labels: Tensor, batch_size: int, instances: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of P identities with K images each (Hermans et al. 2017).

    The images of an identity are divided into groups of K, an incomplete one filled up with others of the same
    identity. Each group is used at most once, and as many batches are composed as possible: identities with most groups
    left come first, those with equally many in random order.

    Args:
        labels: (N,) int64.
        batch_size: P K, a multiple of `instances`.
        instances: K, images per identity in a batch.
        generator: Random generator on the CPU; its state advances.

    Yields:
        (batch_size,) int64 image indices, those of an identity consecutive.
    """
    per_batch = batch_size // instances
    identities, left = _group_counts(labels, instances)
    images = {int(i): (labels == i).nonzero()[:, 0] for i in identities}
    groups: dict[int, list[Tensor]] = {}
    for identity, own in images.items():
        order = own[torch.randperm(len(own), generator=generator)]
        missing = -len(order) % instances
        more = order[torch.randint(len(order), (missing,), generator=generator)]
        groups[identity] = list(torch.cat([order, more]).split(instances))
    for _ in range(_full_batches(left, per_batch)):
        chance = torch.rand(len(left), generator=generator)
        chosen = (left + chance).argsort(descending=True)[:per_batch]
        left[chosen] -= 1
        yield torch.cat([groups[int(identities[i])].pop() for i in chosen])


def mined_batches(
    labels: Tensor, descriptors: Tensor, batch_size: int, negatives: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield batches of tuples: an anchor, a match and its hardest negatives (Radenović et al. 2018, 3.2).

    Anchors are sampled from the images that have a match, and the match from the other images of the anchor's identity.
    The negatives are the nearest images of different other identities, the nearest first.

    Args:
        labels: (N,) int64.
        descriptors: (N, D) floating, by which the nearest images are found.
        batch_size: Images per batch, a multiple of 2 + `negatives`.
        negatives: Negatives per tuple.
        generator: Random generator on the CPU; its state advances.

    Yields:
        (batch_size,) int64 image indices, tuple after tuple.
    """
    size = 2 + negatives
    batches, tuples = max(1, len(labels) // batch_size), batch_size // size
    identities, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    eligible = (counts[classes] > 1).nonzero()[:, 0]
    order = eligible[torch.randperm(len(eligible), generator=generator)]
    anchors = order.repeat(-(-batches * tuples // len(order)))[: batches * tuples]
    rows = []
    for part in anchors.split(256):
        nearest = _nearest_of_each_identity(descriptors, part, classes, len(identities))
        for anchor, hardest in zip(part.tolist(), nearest, strict=True):
            own = (classes == classes[anchor]).nonzero()[:, 0]
            others = own[own != anchor]
            match = others[torch.randint(len(others), (1,), generator=generator)]
            rows.append(torch.cat([torch.tensor([anchor]), match, hardest[:negatives]]))
    yield from torch.cat(rows).split(tuples * size)


def _nearest_of_each_identity(descriptors: Tensor, anchors: Tensor, classes: Tensor, identities: int) -> list[Tensor]:
    """Find for each anchor the nearest image of every other identity, in the order of distance."""
    distances = torch.cdist(descriptors[anchors].float(), descriptors.float())
    order = distances.argsort(dim=1, stable=True)
    nearest = []
    for anchor, row in zip(anchors, order, strict=True):
        # The position in the row at which each identity occurs first; the anchor's own is moved to the end.
        first = torch.full((identities,), len(row)).scatter_reduce(0, classes[row], torch.arange(len(row)), "amin")
        first[classes[anchor]] = len(row)
        nearest.append(row[first.sort().values[:-1]])
    return nearest


def _group_counts(labels: Tensor, instances: int) -> tuple[Tensor, Tensor]:
    """Return the identities and how many groups of `instances` images each has."""
    identities, counts = labels.unique(return_counts=True)
    return identities, -(-counts // instances)


def _full_batches(groups: Tensor, per_batch: int) -> int:
    """Return the maximum number of batches of `per_batch` different identities, given the groups of each."""
    low, high = 0, int(groups.sum()) // per_batch
    while low < high:
        middle = (low + high + 1) // 2
        if int(groups.clamp(max=middle).sum()) >= middle * per_batch:
            low = middle
        else:
            high = middle - 1
    return low
