"""Features: a network and images in, embeddings out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from reid.model.network import ReidNetwork
from reid.records import Features
from reid.stages.epoch import autocast, evaluation_mode


class LabelledBatches(Protocol):
    """Images in a fixed order with their labels: see `reid.data.loaders.TestLoader`."""

    @property
    def identities(self) -> np.ndarray: ...

    @property
    def cameras(self) -> np.ndarray: ...

    @property
    def paths(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@torch.inference_mode()
def extract(
    model: ReidNetwork,
    loader: LabelledBatches,
    *,
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> dict[str, Features]:
    """Embed every image of `loader`: {"input": (N, D_in), "output": (N, K)} of the Eigenlayer, float32.

    mirror: embed the mirror images instead. dtype: autocast type, None for float32. The model's mode is restored.
    """
    parts: dict[str, list[np.ndarray]] = {"input": [], "output": []}
    with evaluation_mode(model):
        for images in tqdm(loader, desc=title or "features", unit="batch", leave=False, mininterval=1.0):
            with autocast(images.device, dtype):
                embedding = model.embed(images.flip(-1) if mirror else images)
            parts["input"].append(embedding.input.float().cpu().numpy())
            parts["output"].append(embedding.output.float().cpu().numpy())
    return {
        name: Features(np.concatenate(values), loader.identities, loader.cameras, tuple(loader.paths))
        for name, values in parts.items()
    }


def mean_features(first: Features, second: Features) -> Features:
    """The mean of an image's embedding and its mirror image's: the flip test."""
    return Features((first.values + second.values) / 2, first.identities, first.cameras, first.paths)
