"""The order in which training images are seen."""

from __future__ import annotations

from collections.abc import Iterator

import torch


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
