"""Small random networks to export, and their metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from composed_network import compose
from torch import nn

from reid.inference.export.interface import ExportInterface
from reid.inference.export.metadata import ModelMetadata
from reid.model.network import ReidNetwork
from reid.records import IMAGENET_MEAN, IMAGENET_STD

MakeMetadata = Callable[..., ModelMetadata]


def evaluated(backbone: str, seed: int = 0, **options: Any) -> ReidNetwork:
    """A network from scratch whose normalizations have statistics of their own, as after a training."""
    torch.manual_seed(seed)
    network = compose(backbone, 7, **options)
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="session")
def make() -> Callable[..., ReidNetwork]:
    return evaluated


@pytest.fixture(scope="session")
def make_metadata() -> MakeMetadata:
    """`make_metadata(size=..., feature=...)`: metadata for an interface; `fields` replaces some of the metadata."""

    def call(*, fields: dict[str, Any] | None = None, **interface: Any) -> ModelMetadata:
        given = {"size": (128, 64), "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **interface}
        known: dict[str, Any] = {
            "dim": 128,
            "model_id": "0123abcd",
            "correlation": 0.25,
            "config": "MODEL:\n  BACKBONE: small_convolution\n",
            "backbone": "small_convolution",
            "pooling": "average",
            "weights": "none",
        }
        return ModelMetadata(interface=ExportInterface(**given), **(known | (fields or {})))

    return call
