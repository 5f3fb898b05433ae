"""Shared by the families of foreign checkpoints: the record of a conversion, the remaining tensors, ResNets, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.errors import InputError
from reid.io.checkpoint import check_state_dict
from reid.model.backbones import build_backbone
from reid.model.backbones.osnet import FEATURE_DIM
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import build_eigenlayer
from reid.model.necks import BNNeck, build_neck
from reid.model.network import ReidNetwork
from reid.model.pooling import build_pooling
from reid.records import IMAGENET_MEAN, IMAGENET_STD

_NO_CLASSIFIER = "the file has no classifier: one with a single class, all zeros, is used instead"

# Known ResNets by their blocks per layer and whether these are bottlenecks.
_DEPTHS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
}


@dataclass(frozen=True)
class BackboneSpec:
    """The network up to the head, by the names that the builders of `reid.model` take.

    Attributes:
        backbone: Name of the backbone.
        norm: Normalization of the backbone.
        last_stride: Stride of the backbone's last stage; None for its own.
        stem: Stem of a ResNet.
        pooling: Name of the pooling.
        fc512: Whether a linear layer to 512, batch normalization and ReLU follow the pooling.
    """

    backbone: str
    norm: str = "batch"
    last_stride: int | None = None
    stem: str = "standard"
    pooling: str = "average"
    fc512: bool = False

    @property
    def name(self) -> str:
        """Name of the architecture, such as resnet50_ibn_a or resnet50_fc512."""
        return self.backbone + ("" if self.norm == "batch" else f"_{self.norm}") + ("_fc512" if self.fc512 else "")

    @property
    def width(self) -> int:
        """Width of the vector handed to the head."""
        if self.fc512 or self.backbone.startswith("osnet"):
            return FEATURE_DIM
        return 512 if self.backbone in ("resnet18", "resnet34") else 2048


@dataclass(frozen=True)
class ConvertedHead:
    """What lies between the pooled vector and the classifier, as BNNeck and Eigenlayer.

    Attributes:
        tensors: State dict entries under `bnneck.` and `eigenlayer.`.
        feature: The feature that the family's evaluation compares, the Eigenlayer's "input" or "output".
        notes: Remarks on what changed in the conversion.
    """

    tensors: dict[str, Tensor]
    feature: str
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width of the classifier's input."""
        return len(self.tensors["eigenlayer.weight"])

    @property
    def bias(self) -> bool:
        """Whether the Eigenlayer has a bias."""
        return "eigenlayer.bias" in self.tensors

    @property
    def bnneck(self) -> bool:
        """Whether there is a BNNeck."""
        return "bnneck.weight" in self.tensors


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a family found in a checkpoint.

    Attributes:
        family: Name of the family.
        body: The network up to the head.
        names: Pairs of name prefixes, the family's and ours.
        head: BNNeck and Eigenlayer between pooled vector and classifier.
        classifier: Weight (classes, K) and bias (classes,) or None for zeros; None if the file has no classifier.
        differences: Assumptions and changes, one line each.
        size: Assumed height and width of the images.
        resize: Assumed filter for resizing.
        mean: Assumed mean of RGB in [0, 1].
        std: Assumed standard deviation of RGB in [0, 1].
    """

    family: str
    body: BackboneSpec
    names: tuple[tuple[str, str], ...]
    head: ConvertedHead
    classifier: tuple[Tensor, Tensor | None] | None
    differences: tuple[str, ...] = ()
    size: tuple[int, int] = (256, 128)
    resize: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True)
class Converted:
    """A checkpoint of another codebase as a network of this one.

    Attributes:
        recognized: What was recognized.
        tensors: State dict of the `ReidNetwork`.
        num_classes: Number of classes of its classifier.
        differences: Assumptions and changes, one line each.
        notes: What of the file was left out or chosen, one line each.
    """

    recognized: Detection
    tensors: dict[str, Tensor]
    num_classes: int
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.recognized.family

    @property
    def architecture(self) -> str:
        """Name of the architecture, such as resnet50_ibn_a."""
        return self.recognized.body.name

    @property
    def feature(self) -> str:
        """The feature that the family's evaluation compares, the Eigenlayer's "input" or "output"."""
        return self.recognized.head.feature


class RemainingTensors:
    """The tensors of a file that have not been taken yet, as float32.

    Args:
        tensors: State dict of the file.
        source: Name of the file in error messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.source = source
        self.tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}

    def take(self, name: str, *shape: int | None) -> Tensor:
        """Remove and return one tensor.

        Args:
            name: Name of the tensor.
            *shape: Expected size per dimension; None for any.

        Returns:
            Tensor of that name, float32 if it is floating.

        Raises:
            InputError: If it is missing or has a different shape.
        """
        if name not in self.tensors:
            raise InputError(f"{self.source}: lacks {name}, which such a checkpoint contains; is the file complete?")
        value = self.tensors.pop(name)
        if len(value.shape) != len(shape) or any(
            expected not in (None, size) for size, expected in zip(value.shape, shape, strict=True)
        ):
            expected_shape = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"{self.source}: {name} is {tuple(value.shape)}, not ({expected_shape})")
        return value

    def take_norm(self, prefix: str, width: int) -> dict[str, Tensor]:
        """Remove and return the tensors of a batch normalization.

        Args:
            prefix: Name of the layer.
            width: Number of channels.

        Returns:
            `weight`, `bias`, `running_mean` and `running_var`, (width,) each.

        Raises:
            InputError: If one is missing or has a different shape.
        """
        self.tensors.pop(f"{prefix}.num_batches_tracked", None)
        parts = ("weight", "bias", "running_mean", "running_var")
        return {part: self.take(f"{prefix}.{part}", width) for part in parts}

    def take_classifier(self, name: str, width: int) -> tuple[Tensor, Tensor | None] | None:
        """Remove and return the tensors of a linear classifier.

        Args:
            name: Name of the layer.
            width: Width K of the classifier's input.

        Returns:
            Weight (classes, width) and bias (classes,) or None; None if both are missing.

        Raises:
            InputError: If one has a different shape, or a bias has no weight.
        """
        if f"{name}.weight" not in self.tensors and f"{name}.bias" not in self.tensors:
            return None
        weight = self.take(f"{name}.weight", None, width)
        return weight, self.take(f"{name}.bias", len(weight)) if f"{name}.bias" in self.tensors else None

    def drop(self, prefix: str) -> list[str]:
        """Remove the tensors whose names start with a prefix.

        Args:
            prefix: Beginning of the names, such as `fc.`.

        Returns:
            Names of the removed tensors.
        """
        names = [name for name in self.tensors if name.startswith(prefix)]
        for name in names:
            del self.tensors[name]
        return names


def recognize_resnet(remaining: RemainingTensors, prefix: str) -> tuple[str, str]:
    """Recognize a ResNet by its tensors.

    Args:
        remaining: Tensors of the file, which are not taken.
        prefix: Prefix of the names of the backbone's tensors.

    Returns:
        Names of the backbone and of its normalization.

    Raises:
        InputError: If the depth of the ResNet is unknown.
    """
    blocks: list[set[str]] = [set(), set(), set(), set()]
    for name in remaining.tensors:
        parts = name.removeprefix(prefix).split(".")
        if name.startswith(prefix) and parts[0] in ("layer1", "layer2", "layer3", "layer4") and len(parts) > 2:
            blocks[int(parts[0][-1]) - 1].add(parts[1])
    counts = tuple(map(len, blocks))
    bottlenecks = f"{prefix}layer1.0.conv3.weight" in remaining.tensors
    depth = _DEPTHS.get((counts, bottlenecks))
    if depth is None:
        kind = "bottleneck" if bottlenecks else "basic"
        known = "; ".join(f"{name} {count}" for (count, _), name in _DEPTHS.items())
        raise InputError(
            f"{remaining.source}: a ResNet with {counts} {kind} blocks in its four layers is not supported; "
            f"supported are {known}"
        )
    norm = "batch"
    if f"{prefix}layer1.0.bn1.IN.weight" in remaining.tensors:
        norm = "ibn_a"
    elif any(".IN." in name for name in remaining.tensors) and f"{prefix}bn1.running_mean" not in remaining.tensors:
        norm = "ibn_b"
    return depth, norm


def identity_head(width: int, *, after: str = "") -> ConvertedHead:
    """Build a head for a family that compares the pooled vector itself: the Eigenlayer is the identity.

    Args:
        width: Width of the pooled vector.
        after: Linear layers between pooling and classifier that do not come directly before the classifier, in words.

    Returns:
        The head, whose input and output are equal.
    """
    return ConvertedHead({"eigenlayer.weight": torch.eye(width)}, "input", (_identity_note(width, after),))


def norm_head(norm: Mapping[str, Tensor]) -> ConvertedHead:
    """Build a head for only a batch normalization: a BNNeck and an identity Eigenlayer.

    A shift, which a BNNeck does not have, becomes the Eigenlayer's bias.

    Args:
        norm: `weight`, `bias`, `running_mean` and `running_var`, (D,) each.

    Returns:
        Head whose output equals that of the batch normalization.
    """
    width = len(norm["weight"])
    tensors = {f"bnneck.{part}": norm[part] for part in ("weight", "running_mean", "running_var")}
    tensors["eigenlayer.weight"] = torch.eye(width)
    if not norm["bias"].any():
        return ConvertedHead(tensors, "input", (_identity_note(width),))
    tensors["eigenlayer.bias"] = norm["bias"]
    note = f"{_identity_note(width)}, with the shift of the last batch normalization as its bias"
    return ConvertedHead(tensors, "output", (note,))


def linear_head(weight: Tensor, bias: Tensor | None, norm: Mapping[str, Tensor] | None) -> ConvertedHead:
    """Build a head for a linear layer and the batch normalization after it: together they are the Eigenlayer.

    Args:
        weight: Weight of the linear layer, (K, D).
        bias: Its bias, (K,), or None.
        norm: `weight`, `bias`, `running_mean` and `running_var` of the normalization, (K,) each, or None.

    Returns:
        Head whose output equals that of the two layers.
    """
    shift = torch.zeros(len(weight)) if bias is None else bias
    if norm is None:
        return ConvertedHead({"eigenlayer.weight": weight, "eigenlayer.bias": shift}, "output")
    slope = norm["weight"].double() / (norm["running_var"].double() + 1e-5).sqrt()
    offset = slope * (shift.double() - norm["running_mean"].double()) + norm["bias"].double()
    tensors = {
        "eigenlayer.weight": (slope[:, None] * weight.double()).float(),
        "eigenlayer.bias": offset.float(),
    }
    note = (
        "its linear layer and the batch normalization after it are merged into one linear layer with a bias, the "
        "Eigenlayer: identical in evaluation, but further training has no running statistics there"
    )
    return ConvertedHead(tensors, "output", (note,))


def assemble(remaining: RemainingTensors, recognized: Detection) -> Converted:
    """Rename and check the remaining tensors, and add head and classifier.

    Args:
        remaining: Tensors of the body.
        recognized: What the family found in the file.

    Returns:
        Tensors under the names of `ReidNetwork`, and what was detected.

    Raises:
        InputError: If tensors are missing, unexpected or have a different shape.
    """
    head, names, classifier = recognized.head, recognized.names, recognized.classifier
    differences = (*head.notes, *recognized.differences)
    if classifier is None:
        differences, classifier = (*differences, _NO_CLASSIFIER), (torch.zeros(1, head.width), None)
    weight, bias = classifier
    with torch.device("meta"):
        template = _build(recognized.body, head, len(weight)).state_dict()
    not_body = ("eigenlayer.", "classifier.", "bnneck.")
    expected = {_renamed(name, names, 1, 0): value for name, value in template.items() if not name.startswith(not_body)}
    network = f"{recognized.family}'s {recognized.body.name}"
    check_state_dict(expected, remaining.tensors, network=network, source=remaining.source)
    tensors = {_renamed(name, names, 0, 1): value for name, value in remaining.tensors.items() if name in expected}
    tensors |= head.tensors
    tensors |= {"classifier.weight": weight, "classifier.bias": torch.zeros(len(weight)) if bias is None else bias}
    return Converted(recognized, tensors, len(weight), differences)


def _build(body: BackboneSpec, head: ConvertedHead, num_classes: int) -> ReidNetwork:
    backbone = build_backbone(body.backbone, last_stride=body.last_stride, stem=body.stem, norm=body.norm)
    pooling = build_pooling(body.pooling, backbone)
    neck = build_neck(body.backbone, pooling.width(backbone.out_channels), fc512=body.fc512)
    eigenlayer = build_eigenlayer(neck.out_features, head.width, bias=head.bias)
    classifier = build_classifier("linear", head.width, num_classes)
    bnneck = BNNeck(neck.out_features) if head.bnneck else None
    return ReidNetwork(backbone, pooling, neck, eigenlayer, classifier, bnneck=bnneck)


def _identity_note(width: int, after: str = "") -> str:
    before = f"{after} belongs to the network before the Eigenlayer"
    why = before if after else "it has no linear layer before its classifier"
    return f"{why}: the Eigenlayer is the identity, {width} x {width}, and its output equals its input"


def _renamed(name: str, names: Sequence[tuple[str, str]], old: int, new: int) -> str:
    # The longest prefix first, so that an empty one is the last.
    for pair in sorted(names, key=lambda pair: -len(pair[old])):
        if name.startswith(pair[old]):
            return pair[new] + name.removeprefix(pair[old])
    return name
