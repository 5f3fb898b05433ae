"""What the families share: the record of a conversion, the tensors still to be explained, ResNets, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reid.errors import InputError
from reid.io.checkpoint import check_state_dict
from reid.model.network import build_network

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NO_CLASSIFIER = "the file has no classifier: one of a single class, all zeros, stands in its place"

# Blocks of each layer, and whether they are bottlenecks, of the ResNets there are here.
_DEPTHS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
}


@dataclass(frozen=True)
class Head:
    """What stands between the pooled vector and the classifier, in our terms.

    tensors: of `bnneck`, `eigenlayer`, under our names. options: of `build_network`. feature: what retrieval compares.
    notes: what became of theirs.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    feature: str
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Of the classifier's input."""
        return len(self.tensors["eigenlayer.weight"])


@dataclass(frozen=True)
class Converted:
    """A checkpoint of another codebase in our terms.

    family, architecture: what was recognized. options: arguments of `build_network`. tensors: the state dict of that
    network. size: height and width; resize: filter; mean, std: of RGB in [0, 1]: the preprocessing that is assumed.
    feature: what their evaluation compares, the Eigenlayer's "input" or "output". differences: one line each.
    """

    family: str
    architecture: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    num_classes: int
    size: tuple[int, int]
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    feature: str
    differences: tuple[str, ...]


class Unexplained:
    """The tensors of a file that have not been taken yet, float32, and the file's name for errors."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.source = source
        self.tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}

    def take(self, name: str, *shape: int | None) -> Tensor:
        """One tensor. shape: None for a side of any length. Raises InputError where it is missing or of another."""
        if name not in self.tensors:
            raise InputError(f"{self.source}: lacks {name}, which belongs to such a checkpoint; is the file whole?")
        value = self.tensors.pop(name)
        if len(value.shape) != len(shape) or any(
            wanted not in (None, side) for side, wanted in zip(value.shape, shape, strict=True)
        ):
            told = ", ".join("any" if side is None else str(side) for side in shape)
            raise InputError(f"{self.source}: {name} is {tuple(value.shape)}, not ({told})")
        return value

    def take_norm(self, prefix: str, width: int) -> dict[str, Tensor]:
        """`weight`, `bias`, `running_mean` and `running_var` of a batch normalization, (width,) each."""
        self.tensors.pop(f"{prefix}.num_batches_tracked", None)
        parts = ("weight", "bias", "running_mean", "running_var")
        return {part: self.take(f"{prefix}.{part}", width) for part in parts}

    def take_classifier(self, name: str, width: int) -> tuple[Tensor, Tensor | None] | None:
        """`NAME.weight`, (classes, width), and `NAME.bias` or None; None where both are missing."""
        if f"{name}.weight" not in self.tensors and f"{name}.bias" not in self.tensors:
            return None
        weight = self.take(f"{name}.weight", None, width)
        return weight, self.take(f"{name}.bias", len(weight)) if f"{name}.bias" in self.tensors else None

    def drop(self, prefix: str) -> list[str]:
        """Leave out what begins so; returns the names."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        for name in names:
            del self.tensors[name]
        return names


def resnet_options(tensors: Unexplained, prefix: str) -> dict[str, Any]:
    """`backbone` and `norm` of a ResNet whose names begin with `prefix`. Raises InputError for one of another depth."""
    blocks: list[set[str]] = [set(), set(), set(), set()]
    for name in tensors.tensors:
        parts = name.removeprefix(prefix).split(".")
        if name.startswith(prefix) and parts[0] in ("layer1", "layer2", "layer3", "layer4") and len(parts) > 2:
            blocks[int(parts[0][-1]) - 1].add(parts[1])
    counts = tuple(map(len, blocks))
    bottlenecks = f"{prefix}layer1.0.conv3.weight" in tensors.tensors
    depth = _DEPTHS.get((counts, bottlenecks))
    if depth is None:
        kind = "bottleneck" if bottlenecks else "basic"
        known = "; ".join(f"{name} {count}" for (count, _), name in _DEPTHS.items())
        raise InputError(
            f"{tensors.source}: a ResNet with {counts} {kind} blocks in its four layers is none of those here ({known})"
        )
    norm = "batch"
    if f"{prefix}layer1.0.bn1.IN.weight" in tensors.tensors:
        norm = "ibn_a"
    elif any(".IN." in name for name in tensors.tensors) and f"{prefix}bn1.running_mean" not in tensors.tensors:
        norm = "ibn_b"
    return {"backbone": depth, "norm": norm}


def resnet_name(options: Mapping[str, Any]) -> str:
    """Such as resnet50_ibn_a."""
    return str(options["backbone"]) + ("" if options["norm"] == "batch" else f"_{options['norm']}")


def resnet_width(options: Mapping[str, Any]) -> int:
    """Channels of its last map."""
    return 512 if options["backbone"] in ("resnet18", "resnet34") else 2048


def plain_head(width: int) -> Head:
    """The pooled vector itself: the Eigenlayer is the identity, so that its input and its output are that vector."""
    return Head({"eigenlayer.weight": torch.eye(width)}, {"eigenlayer_dim": width}, "input", (_identity(width),))


def norm_head(norm: Mapping[str, Tensor]) -> Head:
    """A batch normalization alone: a BNNeck and an identity, which takes over a shift that a BNNeck does not have."""
    width = len(norm["weight"])
    tensors = {f"bnneck.{part}": norm[part] for part in ("weight", "running_mean", "running_var")}
    tensors["eigenlayer.weight"] = torch.eye(width)
    options: dict[str, Any] = {"bnneck": True, "eigenlayer_dim": width}
    if not norm["bias"].any():
        return Head(tensors, options, "input", (_identity(width),))
    tensors["eigenlayer.bias"] = norm["bias"]
    note = f"{_identity(width)}, its bias being the shift of the last batch normalization"
    return Head(tensors, {**options, "eigenlayer_bias": True}, "output", (note,))


def linear_head(weight: Tensor, bias: Tensor | None, norm: Mapping[str, Tensor] | None) -> Head:
    """A linear layer, (K, D) and (K,), and the batch normalization after it: both together are the Eigenlayer."""
    shift = torch.zeros(len(weight)) if bias is None else bias
    if norm is None:
        options = {"eigenlayer_dim": len(weight), "eigenlayer_bias": True}
        return Head({"eigenlayer.weight": weight, "eigenlayer.bias": shift}, options, "output")
    slope = norm["weight"].double() / (norm["running_var"].double() + 1e-5).sqrt()
    offset = slope * (shift.double() - norm["running_mean"].double()) + norm["bias"].double()
    tensors = {
        "eigenlayer.weight": (slope[:, None] * weight.double()).float(),
        "eigenlayer.bias": offset.float(),
    }
    note = (
        "its linear layer and the batch normalization behind it are one linear layer with a bias here, the Eigenlayer: "
        "the same in an evaluation, but a further training has no statistics to follow there"
    )
    return Head(tensors, {"eigenlayer_dim": len(weight), "eigenlayer_bias": True}, "output", (note,))


def _identity(width: int) -> str:
    return f"it has no linear layer before its classifier: the Eigenlayer is the identity, {width} x {width}"


def converted(
    rest: Unexplained,
    *,
    family: str,
    architecture: str,
    names: Sequence[tuple[str, str]],
    options: Mapping[str, Any],
    head: Head,
    classifier: tuple[Tensor, Tensor | None] | None,
    differences: Sequence[str] = (),
    size: tuple[int, int] = (256, 128),
    resize: str = "bilinear",
    mean: Sequence[float] = IMAGENET[0],
    std: Sequence[float] = IMAGENET[1],
) -> Converted:
    """What is left in `rest` renamed and checked, head and classifier added.

    names: beginnings of names, theirs and ours. classifier: its weight, (classes, K), and bias, None for zeros; None
    where there is none. Raises InputError, with their names, where tensors are missing, too many or of other shapes.
    """
    if classifier is None:
        differences, classifier = (*differences, NO_CLASSIFIER), (torch.zeros(1, head.width), None)
    weight, bias = classifier
    every: dict[str, Any] = {**options, **head.options}
    with torch.device("meta"):
        template = build_network(num_classes=len(weight), **every).state_dict()
    ends = ("eigenlayer.", "classifier.", "bnneck.")
    wanted = {_renamed(name, names, 1, 0): value for name, value in template.items() if not name.startswith(ends)}
    check_state_dict(wanted, rest.tensors, network=f"{family}'s {architecture}", source=rest.source)
    tensors = {_renamed(name, names, 0, 1): value for name, value in rest.tensors.items() if name in wanted}
    tensors |= head.tensors
    tensors |= {"classifier.weight": weight, "classifier.bias": torch.zeros(len(weight)) if bias is None else bias}
    return Converted(
        family=family,
        architecture=architecture,
        options=every,
        tensors=tensors,
        num_classes=len(weight),
        size=size,
        resize=resize,
        mean=tuple(mean),
        std=tuple(std),
        feature=head.feature,
        differences=(*head.notes, *differences),
    )


def _renamed(name: str, names: Sequence[tuple[str, str]], old: int, new: int) -> str:
    # The longest beginning first, so that an empty one is the last.
    for pair in sorted(names, key=lambda pair: -len(pair[old])):
        if name.startswith(pair[old]):
            return pair[new] + name.removeprefix(pair[old])
    return name
