"""Shuffled batches and shards of a batch."""

from __future__ import annotations

import pytest
import torch

from reid.data.loading.samplers import shard_batch, shuffled_batches


def batches(count: int, size: int, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in shuffled_batches(count, size, torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize(("count", "size", "lengths"), [(10, 3, [3, 3, 3]), (9, 3, [3, 3, 3]), (2, 3, [2]), (0, 3, [])])
def test_batches_are_full_unless_there_is_only_one(count, size, lengths):
    found = batches(count, size)
    assert [len(batch) for batch in found] == lengths
    seen = [index for batch in found for index in batch]
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(count))


def test_the_order_follows_the_generator():
    assert batches(100, 10, seed=1) == batches(100, 10, seed=1) != batches(100, 10, seed=2)
    assert batches(100, 10) != [list(range(start, start + 10)) for start in range(0, 100, 10)]


@pytest.mark.parametrize(("count", "group", "world"), [(12, 1, 5), (12, 4, 3), (12, 4, 2), (10, 4, 3), (7, 1, 7)])
def test_shards_are_the_batch_in_whole_groups_as_evenly_as_possible(count, group, world):
    index = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:count]
    shares = [shard_batch(index, group, rank, world) for rank in range(world)]
    assert torch.equal(torch.cat(shares), index)
    assert all(len(part) % group == 0 for part in shares[:-1])
    groups = [-(-len(part) // group) for part in shares]
    assert max(groups) - min(groups) <= 1 and min(groups) > 0
