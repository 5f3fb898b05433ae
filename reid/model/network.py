"""The network of SVDNet: backbone -> pooling -> neck -> Eigenlayer -> dropout -> classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from reid.errors import InputError, unknown_name
from reid.model import BACKBONES, NECKS, Trunk
from reid.model.eigenlayer import Eigenlayer
from reid.model.pooling import POOLINGS, Pooling

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Embedding:
    """What retrieval may compare: the Eigenlayer's input, (B, D_in) float32, and its output, (B, K) float32."""

    input: Tensor
    output: Tensor


class ReidNetwork(nn.Module):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes) float32.

    Under autocast the backbone alone is computed in the lower precision. From the pooling on all is float32: that part
    costs next to nothing, and replacing W by US leaves distances as they were only as exactly as W is multiplied.
    Without a `classifier` the Eigenlayer is the last layer, an ablation of the paper: its output is the logits, and
    dropout comes before it.
    """

    def __init__(
        self,
        backbone: Trunk,
        pooling: Pooling,
        neck: nn.Module,
        eigenlayer: Eigenlayer,
        classifier: nn.Linear | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.neck = neck
        self.eigenlayer = eigenlayer
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def embed(self, images: Tensor) -> Embedding:
        """Eigenlayer input (B, D_in) and output (B, K), float32."""
        # Channels last suits convolutions better: OSNet-x0.25 trains 1.4 and embeds 1.8 times as fast on a CPU.
        maps = self.backbone(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(maps.device.type, enabled=False):
            features = self.neck(self.pooling(maps))
            last = self.classifier is None
            return Embedding(features, self.eigenlayer(self.dropout(features) if last else features))

    def classify(self, output: Tensor) -> Tensor:
        """Logits (B, num_classes) float32 of the Eigenlayer's output (B, K)."""
        if self.classifier is None:
            return output
        with torch.autocast(output.device.type, enabled=False):
            return self.classifier(self.dropout(output))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.embed(images).output)


def build_network(
    backbone: str,
    *,
    num_classes: int,
    weights: Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    pooling: str = "average",
    eigenlayer_dim: int = 0,
    eigenlayer_bias: bool = False,
    eigenlayer_relu: bool = False,
    eigenlayer_last: bool = False,
    init_std: float = 0.01,
    dropout: float = 0.5,
    source: str = "the given weights",
) -> ReidNetwork:
    """Build the network, its parts by name from BACKBONES and POOLINGS.

    weights: published state dict of the bare backbone (`load_pretrained` reads one), or None: from scratch; `source`
    is what an error calls it, best its path. last_stride: None is the backbone's own. eigenlayer_dim: K, 0 for
    min(1024, D_in). eigenlayer_last: the Eigenlayer is the classifier, so K is num_classes. init_std: standard
    deviation of the Eigenlayer's first weights; the classifier starts from N(0, 0.01) with zero bias.
    Raises InputError for an unknown name, K > D_in, or weights that do not fit.
    """
    if eigenlayer_last and eigenlayer_dim not in (0, num_classes):
        raise InputError(
            f"an Eigenlayer that is the last layer has one vector a class: K = {num_classes}, not {eigenlayer_dim}"
        )
    pool = _choose("pooling", pooling, POOLINGS)()
    trunk = _choose("backbone", backbone, BACKBONES)(weights=weights, last_stride=last_stride, source=source)
    d_in = pool.width(trunk.out_channels)
    neck: nn.Module = nn.Identity()
    if backbone in NECKS:
        neck = block = NECKS[backbone](d_in, weights=weights, source=source)
        d_in = block.out_features
    if eigenlayer_last and num_classes > d_in:
        raise InputError(
            f"an Eigenlayer that is the last layer has one vector a class, and {num_classes} vectors in D_in = {d_in} "
            f"dimensions cannot be orthogonal; take fewer classes or a backbone wider than {backbone}"
        )
    k = num_classes if eigenlayer_last else eigenlayer_dim
    eigenlayer = Eigenlayer(d_in, k, bias=eigenlayer_bias, relu=eigenlayer_relu, init_std=init_std)
    classifier = None
    if not eigenlayer_last:
        classifier = nn.Linear(eigenlayer.out_features, num_classes)
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
    return ReidNetwork(trunk, pool, neck, eigenlayer, classifier, dropout)


def _choose(part: str, name: str, choices: Mapping[str, Choice]) -> Choice:
    if name not in choices:
        raise unknown_name(part, name, tuple(choices))
    return choices[name]
