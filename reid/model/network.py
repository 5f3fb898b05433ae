"""The network of SVDNet: backbone -> pooling -> neck (-> BNNeck) -> Eigenlayer -> dropout -> classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid.io.checkpoint import load_state_dict
from reid.model.backbones import Trunk
from reid.model.classifiers import MarginLinear
from reid.model.eigenlayer import Eigenlayer
from reid.model.pooling import Pooling

logger = logging.getLogger(__name__)

_BEFORE_EIGENLAYER = ("backbone", "pooling", "neck", "bnneck")


@dataclass(frozen=True)
class Embedding:
    """Features of a batch that retrieval can compare.

    Attributes:
        input: The Eigenlayer's input, (B, D_in) float32.
        output: The Eigenlayer's output, (B, K) float32.
    """

    input: Tensor
    output: Tensor


class ReidNetwork(nn.Module):
    """Re-identification network: images (B, 3, H, W) float32, normalized -> logits (B, num_classes) float32.

    Under autocast only the backbone runs in the lower precision. Everything from the pooling on is float32: it costs
    next to nothing, and replacing W by US preserves distances only as exactly as W is multiplied.

    Args:
        backbone: Images -> feature maps (B, C, h, w).
        pooling: Feature maps -> pooled vector.
        neck: Pooled vector -> the Eigenlayer's input (B, D_in).
        eigenlayer: (B, D_in) -> (B, K).
        classifier: (B, K) -> logits. None makes the Eigenlayer the last layer, an ablation of the paper: its output is
            the logits, and dropout comes before it.
        dropout: Probability of dropping an input of the last layer in training, in [0, 1).
        bnneck: Batch normalization between neck and Eigenlayer, or None.
    """

    def __init__(
        self,
        backbone: Trunk,
        pooling: Pooling,
        neck: nn.Module,
        eigenlayer: Eigenlayer,
        classifier: nn.Linear | None,
        dropout: float = 0.5,
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
        """Compute the features of images.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            The Eigenlayer's input and output.
        """
        # Channels last suits convolutions better: OSNet-x0.25 trains 1.4 and embeds 1.8 times as fast on a CPU.
        maps = self.backbone(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(maps.device.type, enabled=False):
            features = self.bnneck(self.neck(self.pooling(maps)))
            last = self.classifier is None
            return Embedding(features, self.eigenlayer(self.dropout(features) if last else features))

    def classify(self, output: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the logits of Eigenlayer outputs.

        Args:
            output: (B, K) float32.
            labels: (B,) int64, the true identities, to which a classifier with a margin applies the margin.

        Returns:
            Logits (B, num_classes) float32.
        """
        if self.classifier is None:
            return output
        with torch.autocast(output.device.type, enabled=False):
            if isinstance(self.classifier, MarginLinear):
                return self.classifier(self.dropout(output), labels)
            return self.classifier(self.dropout(output))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of images.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            Logits (B, num_classes) float32.
        """
        return self.classify(self.embed(images).output)


def is_whole_network(weights: Mapping[str, Tensor] | None) -> bool:
    """Whether weights are those of a `ReidNetwork` rather than of a bare backbone.

    Args:
        weights: State dict, or None.

    Returns:
        True if every tensor belongs to a part of a `ReidNetwork`.
    """
    parts = (*_BEFORE_EIGENLAYER, "eigenlayer", "classifier")
    return bool(weights) and all(name.split(".")[0] in parts for name in weights or ())


def load_before_eigenlayer(network: ReidNetwork, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load everything before the Eigenlayer from another network; Eigenlayer and classifier keep their values.

    Args:
        network: Network to load into.
        weights: State dict of a `ReidNetwork`.
        source: Name of the weights in messages.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    before = nn.ModuleDict({name: network.get_submodule(name) for name in _BEFORE_EIGENLAYER})
    loaded = {name: value for name, value in weights.items() if name.split(".")[0] in _BEFORE_EIGENLAYER}
    load_state_dict(before, loaded, network="the configured network before its Eigenlayer", source=source)
    logger.info("%s: everything before the Eigenlayer is loaded; the Eigenlayer and the classifier are new", source)
