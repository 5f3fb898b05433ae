"""A network composed of parts by name, for tests that need no configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reid.model.backbones import build_backbone
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import build_eigenlayer, last_layer_vector_count
from reid.model.necks import BNNeck, build_neck
from reid.model.network import ReidNetwork
from reid.model.pooling import build_pooling

Options = Mapping[str, Any]


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Weights and running statistics that leave no term of a formula at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(noise + 0.5 if name.endswith("running_var") else noise - 0.4)


def compose(
    backbone: str,
    num_classes: int,
    *,
    pooling: str = "average",
    pooling_options: Options | None = None,
    eigenlayer: Options | None = None,
    classifier: str | None = "linear",
    bnneck: bool = False,
    dropout: float = 0.5,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
    **backbone_options: Any,
) -> ReidNetwork:
    """The options are those of the builders; without a classifier the Eigenlayer is the last layer."""
    trunk = build_backbone(backbone, weights=weights, source=source, **backbone_options)
    pool = build_pooling(pooling, trunk, **(pooling_options or {}))
    neck = build_neck(backbone, pool.width(trunk.out_channels), weights=weights, source=source)
    options = dict(eigenlayer or {})
    if classifier is None:
        options["k"] = last_layer_vector_count(neck.out_features, options.get("k", 0), num_classes)
    projection = build_eigenlayer(neck.out_features, **options)
    last = build_classifier(classifier, projection.out_features, num_classes) if classifier else None
    norm = BNNeck(neck.out_features) if bnneck else None
    return ReidNetwork(trunk, pool, neck, projection, last, dropout, norm)
