"""The network of SVDNet: backbone -> pooling -> neck (-> BNNeck) -> Eigenlayer -> dropout -> classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reid.errors import InputError, unknown_name
from reid.io.checkpoint import load_state_dict
from reid.model import BACKBONES, NECKS, Trunk
from reid.model.backbones.osnet import FEATURE_DIM, FeatureBlock
from reid.model.backbones.resnet import change_stem
from reid.model.classifiers import DEFAULT, MARGINS, MarginLinear
from reid.model.eigenlayer import Eigenlayer, vector_count
from reid.model.normalization import BNNeck, CosineLinear, normalize
from reid.model.normalization.ibn import has_ibn_names
from reid.model.parametrization import parametrize_eigenlayer
from reid.model.pooling import POOLINGS, Pooling
from reid.model.pooling.flatten import Flatten

Choice = TypeVar("Choice")

logger = logging.getLogger(__name__)

CLASSIFIERS = ("linear", "cosine", *MARGINS)
_BEFORE = ("backbone", "pooling", "neck", "bnneck")  # parts of a network before its Eigenlayer
LARGE = 2**26  # weights of an Eigenlayer that are worth a warning


@dataclass(frozen=True)
class Embedding:
    """What retrieval may compare: the Eigenlayer's input, (B, D_in) float32, and its output, (B, K) float32."""

    input: Tensor
    output: Tensor


class ReidNetwork(nn.Module):
    """Images (B, 3, H, W) float32, normalized -> logits (B, num_classes) float32.

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
        bnneck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.neck = neck
        self.bnneck = bnneck or nn.Identity()
        self.eigenlayer = eigenlayer
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def embed(self, images: Tensor) -> Embedding:
        """Eigenlayer input (B, D_in) and output (B, K), float32."""
        # Channels last suits convolutions better: OSNet-x0.25 trains 1.4 and embeds 1.8 times as fast on a CPU.
        maps = self.backbone(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(maps.device.type, enabled=False):
            features = self.bnneck(self.neck(self.pooling(maps)))
            last = self.classifier is None
            return Embedding(features, self.eigenlayer(self.dropout(features) if last else features))

    def classify(self, output: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, num_classes) float32 of the Eigenlayer's output (B, K).

        labels: (B,) int64, the true identities, by which a classifier with a margin makes its task harder.
        """
        if self.classifier is None:
            return output
        with torch.autocast(output.device.type, enabled=False):
            if isinstance(self.classifier, MarginLinear):
                return self.classifier(self.dropout(output), labels)
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
    pooling_options: Mapping[str, Any] | None = None,
    norm: str = "batch",
    norm_groups: int = 32,
    stem: str = "standard",
    bnneck: bool = False,
    fc_neck: bool = False,
    eigenlayer_dim: int = 0,
    eigenlayer_bias: bool = False,
    eigenlayer_relu: bool = False,
    eigenlayer_last: bool = False,
    eigenlayer_parametrization: str = "none",
    eigenlayer_map: str = "matrix_exp",
    init_std: float = 0.01,
    dropout: float = 0.5,
    classifier: str = "linear",
    classifier_scale: float = 16.0,
    classifier_margin: float = 0.0,
    source: str = "the given weights",
) -> ReidNetwork:
    """Build the network, its parts by name from BACKBONES and POOLINGS.

    weights: published state dict of the bare backbone, or that of a network of ours, of which all before the Eigenlayer
    is taken (`load_pretrained` reads both), or None: from scratch; `source` is what an error calls it, best its path.
    last_stride: None is the backbone's own. pooling_options: of the pooling,
    by their names in OPTIONS. eigenlayer_dim: K, 0 for min(1024, D_in). eigenlayer_last: the Eigenlayer is the
    classifier, so K is num_classes. eigenlayer_parametrization, eigenlayer_map: see `parametrize_eigenlayer`.
    init_std: standard deviation of the Eigenlayer's first weights; the classifier starts from N(0, 0.01) with zero
    bias.
    norm: what the backbone normalizes by, of NORMS; norm_groups are those of "group". stem: of a ResNet, see STEMS.
    bnneck: a BNNeck before the Eigenlayer. fc_neck: a linear layer to 512, batch normalization and ReLU, where the
    backbone has no neck of its own. classifier: "linear", "cosine" with a learnable scale that starts at
    classifier_scale, or "arcface" or "cosface" with that scale and classifier_margin, 0 for the paper's.
    Raises InputError for an unknown name, K > D_in, or weights that do not fit.
    """
    if classifier not in CLASSIFIERS:
        raise unknown_name("classifier", classifier, CLASSIFIERS)
    if eigenlayer_last and eigenlayer_dim not in (0, num_classes):
        raise InputError(
            f"an Eigenlayer that is the last layer has one vector a class: K = {num_classes}, not {eigenlayer_dim}"
        )
    started, weights = (weights, None) if is_whole(weights) else (None, weights)
    make_pooling = _choose("pooling", pooling, {**POOLINGS, "flatten": Flatten})
    trunk = _trunk(backbone, norm, norm_groups, weights=weights, last_stride=last_stride, source=source)
    options = dict(pooling_options or {})
    if pooling == "flatten":
        options["size"] = _map_size(trunk, backbone)
    change_stem(trunk, stem, backbone)
    pool = make_pooling(trunk.out_channels, **options)
    d_in = pool.width(trunk.out_channels)
    neck: nn.Module = nn.Identity()
    if backbone in NECKS:
        neck = block = NECKS[backbone](d_in, weights=weights, source=source)
        d_in = block.out_features
    elif fc_neck:
        neck = FeatureBlock(d_in)
        d_in = FEATURE_DIM
    if eigenlayer_last and num_classes > d_in:
        raise InputError(
            f"an Eigenlayer that is the last layer has one vector a class, and {num_classes} vectors in D_in = {d_in} "
            f"dimensions cannot be orthogonal; take fewer classes or a backbone wider than {backbone}"
        )
    k = num_classes if eigenlayer_last else eigenlayer_dim
    vectors = vector_count(d_in, k)
    if d_in * vectors > LARGE:
        logger.warning(
            "%s pooling makes the Eigenlayer %d x %d: %.2f GB, twice that for its float64 decomposition, and as much "
            "again for every state of the optimizer; fewer clusters or a smaller K make it smaller",
            pooling,
            d_in,
            vectors,
            d_in * vectors * 4 / 1e9,
        )
    eigenlayer = Eigenlayer(d_in, k, bias=eigenlayer_bias, relu=eigenlayer_relu, init_std=init_std)
    parametrize_eigenlayer(eigenlayer, eigenlayer_parametrization, eigenlayer_map)
    logits = (
        None
        if eigenlayer_last
        else _classifier(classifier, eigenlayer.out_features, num_classes, classifier_scale, classifier_margin)
    )
    network = ReidNetwork(trunk, pool, neck, eigenlayer, logits, dropout, BNNeck(d_in) if bnneck else None)
    if norm == "sync_batch":
        normalize(network, norm, network=backbone, pretrained=weights is not None)
    if started is not None:
        _start(network, started, source)
    return network


def is_whole(weights: Mapping[str, Tensor] | None) -> bool:
    """Whether tensors are those of a whole network of ours rather than of a bare backbone."""
    parts = (*_BEFORE, "eigenlayer", "classifier")
    return bool(weights) and all(name.split(".")[0] in parts for name in weights or ())


def _start(network: ReidNetwork, weights: Mapping[str, Tensor], source: str) -> None:
    """Take over all before the Eigenlayer; that and the classifier begin anew."""
    before = nn.ModuleDict({name: network.get_submodule(name) for name in _BEFORE})
    taken = {name: value for name, value in weights.items() if name.split(".")[0] in _BEFORE}
    load_state_dict(before, taken, network="the configured network before its Eigenlayer", source=source)
    logger.info("%s: all before the Eigenlayer is taken; the Eigenlayer and the classifier begin anew", source)


def _trunk(
    backbone: str,
    norm: str,
    groups: int,
    *,
    weights: Mapping[str, Tensor] | None,
    last_stride: int | None,
    source: str,
) -> Trunk:
    """The backbone with its normalization; published weights of IBN-Net go into the network that has its layers."""
    make = _choose("backbone", backbone, BACKBONES)
    own = weights is not None and norm.startswith("ibn_") and has_ibn_names(weights)
    trunk = make(weights=None if own else weights, last_stride=last_stride, source=source)
    if norm != "sync_batch":  # which takes the whole network, once it is there
        normalize(trunk, norm, groups=groups, network=backbone, pretrained=weights is not None and not own)
    if weights is not None and own:
        unused = ("fc.weight", "fc.bias")
        load_state_dict(trunk, weights, network=f"{backbone} with {norm}", source=source, unused=unused)
    return trunk


def _map_size(trunk: Trunk, backbone: str) -> tuple[int, int]:
    size: tuple[int, int] | None = getattr(trunk, "map_size", None)
    if size is None:
        raise InputError(f"{backbone} has maps of any size, which no flattening fits; take another MODEL.POOLING.NAME")
    return size


def _classifier(name: str, d_in: int, num_classes: int, scale: float, margin: float) -> nn.Linear:
    if name in MARGINS:
        return MarginLinear(d_in, num_classes, name, scale, margin or DEFAULT[name])
    if name == "cosine":
        return CosineLinear(d_in, num_classes, scale)
    layer = nn.Linear(d_in, num_classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _choose(part: str, name: str, choices: Mapping[str, Choice]) -> Choice:
    if name not in choices:
        raise unknown_name(part, name, tuple(choices))
    return choices[name]
