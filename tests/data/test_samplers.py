"""Every image once, in full batches."""

from __future__ import annotations

import pytest
import torch

from reid.data.samplers import shuffled_batches


def batches(count: int, size: int, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in shuffled_batches(count, size, torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize(("count", "size", "lengths"), [(10, 3, [3, 3, 3]), (9, 3, [3, 3, 3]), (2, 3, [2]), (0, 3, [])])
def test_batches_are_full_unless_there_is_only_one(count, size, lengths):
    drawn = batches(count, size)
    assert [len(batch) for batch in drawn] == lengths
    seen = [index for batch in drawn for index in batch]
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(count))


def test_the_order_follows_the_generator():
    assert batches(100, 10, seed=1) == batches(100, 10, seed=1) != batches(100, 10, seed=2)
    assert batches(100, 10) != [list(range(start, start + 10)) for start in range(0, 100, 10)]
