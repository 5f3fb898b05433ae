"""Networks and facts to export, small and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from reid.inference.export.interface import IMAGENET_MEAN, IMAGENET_STD, Form
from reid.inference.export.metadata import Facts
from reid.model.network import ReidNetwork, build_network

Describe = Callable[..., Facts]


def evaluated(backbone: str, seed: int = 0, **options: Any) -> ReidNetwork:
    """A network from scratch whose normalizations have statistics of their own, as after a training."""
    torch.manual_seed(seed)
    network = build_network(backbone, num_classes=7, **options)
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
def describe() -> Describe:
    """`describe(size=..., feature=...)`: the facts of a form; `facts` replaces some of them."""

    def call(*, facts: dict[str, Any] | None = None, **form: Any) -> Facts:
        given = {"size": (128, 64), "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **form}
        known: dict[str, Any] = {
            "dim": 128,
            "model_id": "0123abcd",
            "correlation": 0.25,
            "config": "MODEL:\n  BACKBONE: small_convolution\n",
            "backbone": "small_convolution",
            "pooling": "average",
            "weights": "none",
        }
        return Facts(form=Form(**given), **(known | (facts or {})))

    return call
