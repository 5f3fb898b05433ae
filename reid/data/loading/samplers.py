"""The order in which training images are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.errors import InputError


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices 0..count-1 in random order, as (batch_size,) int64 batches.

    The incomplete last batch is dropped (a handful of images makes poor BatchNorm statistics) unless it is the only
    one. generator: a CPU generator.
    """
    order = torch.randperm(count, generator=generator)
    if count < batch_size:
        batches = [order] if count else []
    else:
        batches = list(order[: count - count % batch_size].split(batch_size))
    yield from batches


@dataclass(frozen=True)
class Sampler:
    """Which images meet in a batch.

    name: "shuffled", every image once; "identity", P identities with `instances` images each; "mined", tuples of an
    anchor, a match and the `negatives` hardest images of other identities.
    """

    name: str = "shuffled"
    instances: int = 4
    negatives: int = 2

    @property
    def tuple_size(self) -> int:
        """Images of a tuple of "mined", 0 of the others."""
        return 2 + self.negatives if self.name == "mined" else 0

    @property
    def group(self) -> int:
        """Images of a batch that belong together."""
        return {"identity": self.instances, "mined": self.tuple_size}.get(self.name, 1)


def share(index: Tensor, group: int, rank: int, world: int) -> Tensor:
    """What process `rank` of `world` takes of a batch: neighboring groups of `group` images, as even as can be.

    index: (B,) int64. All shares in the order of the ranks are the batch. Raises InputError where one would be empty.
    """
    if not 0 <= rank < world:
        raise ValueError(f"there is no process {rank} among {world}")
    groups = -(-len(index) // group)
    if groups < world:
        raise InputError(
            f"a batch of {len(index)} images, {group} of which belong together, cannot be shared by {world} processes; "
            "raise SOLVER.BATCH_SIZE or start fewer"
        )
    first, last = (len(index) if part == world else part * groups // world * group for part in (rank, rank + 1))
    return index[first:last]


def batch_count(sampler: Sampler, labels: Tensor, batch_size: int) -> int:
    """Batches of one epoch. Raises InputError where the data, labels (N,) int64, cannot fill a single one."""
    if sampler.name == "identity":
        if batch_size % sampler.instances:
            raise InputError(f"a batch of {batch_size} images is not made of {sampler.instances} images an identity")
        people, present = batch_size // sampler.instances, len(labels.unique())
        if people > present:
            raise InputError(
                f"a batch of {people} identities with {sampler.instances} images each cannot be filled: there are "
                f"{present} training identities; lower SOLVER.BATCH_SIZE or raise SAMPLER.INSTANCES"
            )
        return _full_batches(_shares(labels, sampler.instances)[1], people)
    if sampler.name == "mined":
        _, counts = labels.unique(return_counts=True)
        if batch_size % sampler.tuple_size:
            raise InputError(f"a batch of {batch_size} images is not made of tuples of {sampler.tuple_size}")
        if not (counts > 1).any() or len(counts) <= sampler.negatives:
            raise InputError(
                f"mining takes an identity of two images and {sampler.negatives} others beside it; there are "
                f"{len(counts)} training identities, {int((counts > 1).sum())} of them with two images"
            )
        if batch_size > len(labels):
            raise InputError(
                f"a batch of {batch_size} images in tuples of {sampler.tuple_size} cannot be filled: there are "
                f"{len(labels)} training images; lower SOLVER.BATCH_SIZE"
            )
    return max(1, len(labels) // batch_size)


def identity_batches(labels: Tensor, batch_size: int, instances: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices in batches of batch_size / instances identities with `instances` images each (Hermans et al. 2017).

    The images of an identity are divided into shares of `instances`, an incomplete one filled up with others of the
    same identity. Every share is used at most once, and as many batches are made as there can be: identities with most
    shares left go first, equal ones by chance. labels: (N,) int64. generator: a CPU generator.
    """
    people = batch_size // instances
    identities, left = _shares(labels, instances)
    images = {int(i): (labels == i).nonzero()[:, 0] for i in identities}
    waiting: dict[int, list[Tensor]] = {}
    for identity, own in images.items():
        order = own[torch.randperm(len(own), generator=generator)]
        missing = -len(order) % instances
        more = order[torch.randint(len(order), (missing,), generator=generator)]
        waiting[identity] = list(torch.cat([order, more]).split(instances))
    for _ in range(_full_batches(left, people)):
        chance = torch.rand(len(left), generator=generator)
        chosen = (left + chance).argsort(descending=True)[:people]
        left[chosen] -= 1
        yield torch.cat([waiting[int(identities[place])].pop() for place in chosen])


def mined_batches(
    labels: Tensor, descriptors: Tensor, batch_size: int, negatives: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices in batches of tuples: an anchor, a match of it, its hardest non-matches (Radenović et al. 2018, 3.2).

    The anchors are drawn from the images that have a match, the match from the anchor's identity. The non-matches are
    the nearest images by `descriptors`, (N, D) floating, of as many other identities, the nearest first. labels: (N,)
    int64. generator: a CPU generator.
    """
    size = 2 + negatives
    batches, tuples = max(1, len(labels) // batch_size), batch_size // size
    identities, places, counts = labels.unique(return_inverse=True, return_counts=True)
    able = (counts[places] > 1).nonzero()[:, 0]
    order = able[torch.randperm(len(able), generator=generator)]
    anchors = order.repeat(-(-batches * tuples // len(order)))[: batches * tuples]
    rows = []
    for part in anchors.split(256):
        nearest = _nearest_of_each_identity(descriptors, part, places, len(identities))
        for anchor, hardest in zip(part.tolist(), nearest, strict=True):
            own = (places == places[anchor]).nonzero()[:, 0]
            others = own[own != anchor]
            match = others[torch.randint(len(others), (1,), generator=generator)]
            rows.append(torch.cat([torch.tensor([anchor]), match, hardest[:negatives]]))
    yield from torch.cat(rows).split(tuples * size)


def _nearest_of_each_identity(descriptors: Tensor, anchors: Tensor, places: Tensor, identities: int) -> list[Tensor]:
    """For each anchor one image of every other identity, its nearest, in the order of distance."""
    distances = torch.cdist(descriptors[anchors].float(), descriptors.float())
    order = distances.argsort(dim=1, stable=True)
    found = []
    for anchor, row in zip(anchors, order, strict=True):
        # Where along the row each identity comes first; the anchor's own goes last.
        first = torch.full((identities,), len(row)).scatter_reduce(0, places[row], torch.arange(len(row)), "amin")
        first[places[anchor]] = len(row)
        found.append(row[first.sort().values[:-1]])
    return found


def _shares(labels: Tensor, instances: int) -> tuple[Tensor, Tensor]:
    """The identities and how many shares of `instances` images each has."""
    identities, counts = labels.unique(return_counts=True)
    return identities, -(-counts // instances)


def _full_batches(shares: Tensor, people: int) -> int:
    """The most batches of `people` different identities that so many shares of each make."""
    low, high = 0, int(shares.sum()) // people
    while low < high:
        middle = (low + high + 1) // 2
        if int(shares.clamp(max=middle).sum()) >= middle * people:
            low = middle
        else:
            high = middle - 1
    return low
