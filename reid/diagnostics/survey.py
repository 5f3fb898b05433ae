"""Every linear and convolution weight of a network: which they are, and how correlated each one is."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from reid.decorrelation import gaussian_correlation
from reid.diagnostics.weights import Layer, describe, measure
from reid.errors import InputError

_EMBEDDING = re.compile(r"embed|^(wte|wpe)$")
_NORM = re.compile(r"(^|_)(bn|norm|ln)\d*$|norm$")


def find_layers(
    tensors: Mapping[str, Tensor],
    *,
    network: Mapping[str, int] | None = None,
    given: Mapping[str, int] | None = None,
    source: str = "the weights",
) -> list[Layer]:
    """The weights of linear and convolution layers in a state dict, in its order.

    A state dict says names and shapes alone, so what is a weight is a guess: a floating tensor of two to five axes
    whose last name has "weight" in it. Left out are the parts whose parent is named as a normalization, and, with two
    axes and without a bias beside it, as an embedding (a table that is looked up, not a layer). A tensor that the guess
    misses is still there for `find_layer`. The first axis is taken for the outputs, so a transposed convolution or
    GPT-2's transposed linear layers, which lie the other way round, are read as if they were not.

    Groups: as `given` by name; else as the `network` says (see `network_groups`), where that is known; else guessed
    from shapes. A convolution (K, c, ...) after a weight of P outputs, in the order of the file, is
        depthwise, K groups of one     where c = 1 and P = K, or c = 1, P > 1 and the kernel is larger than 1×1
        P / c groups                   where P = K, c divides P, c < P and the kernel is larger than 1×1
        ordinary                       anywhere else
    The file's order isn't always the order of the data: where branches run side by side (SqueezeNet), or grouped layers
    change the width (ResNeSt), the guess can be wrong; each layer says where its groups come from.
    source: what an error calls the weights, best their path. Raises InputError for a name in `given` that is none here,
    or groups that don't divide the kernels.
    """
    found: list[Layer] = []
    wanted = {find_tensor(tensors, name, source): groups for name, groups in (given or {}).items()}
    outputs: int | None = None
    for name, tensor in tensors.items():
        if not _is_weight(name, tensors):
            continue
        found.append(_layer(name, tensor, outputs, network or {}, wanted))
        outputs = len(tensor)
    return found


def find_layer(tensors: Mapping[str, Tensor], layers: Sequence[Layer], name: str, source: str = "the weights") -> Layer:
    """The layer of a tensor's name, with or without its ".weight"; one outside `layers` is taken without groups.

    Raises InputError offering near names where there is none, or where the tensor is no matrix.
    """
    full = find_tensor(tensors, name, source)
    return next((layer for layer in layers if layer.name == full), None) or Layer(full, tensors[full])


def find_tensor(tensors: Mapping[str, Tensor], name: str, source: str = "the weights") -> str:
    """The full name of a tensor, given with or without its ".weight"; InputError with near names for an unknown one."""
    for full in (name, f"{name}.weight"):
        if full in tensors:
            return full
    weights = [other for other in tensors if _is_weight(other, tensors)] or list(tensors)
    near = difflib.get_close_matches(name, [*weights, *(w.removesuffix(".weight") for w in weights)], n=6, cutoff=0.5)
    whole = [other if other in tensors else f"{other}.weight" for other in near]
    whole += [other for other in weights if name and name in other]
    offered = list(dict.fromkeys(whole))[:3]
    guess = f"did you mean {' or '.join(offered)}? " if offered else ""
    raise InputError(f"{source}: no layer {name!r}; {guess}without --layer all {len(weights)} weights are listed")


def network_groups(model: nn.Module) -> dict[str, int]:
    """The groups of every linear and convolution weight of a network, by the names of its state dict."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        f"{name}.weight": module.groups if isinstance(module, convolutions) else 1
        for name, module in model.named_modules()
        if isinstance(module, (*convolutions, nn.Linear))
    }


def survey(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """One row for each layer, the most correlated first; plain values.

    A row is `weights.describe` and `weights.measure`, and
        gaussian  S(W) to expect of Gaussian vectors, as many and as long: `gaussian_correlation` of a group
        ratio     S(W) over it: 1 for vectors as independent as chance makes them, below 1 for more correlated ones
        broken    why there are no numbers (NaN, all zero, too many vectors), or None
    Rows are sorted by `ratio`, smallest first, since S(W) itself also falls with every vector that a layer has more,
    and so compares no two shapes. Layers without pairs of vectors (depthwise) come after, broken ones last.
    """
    rows = []
    for layer in tqdm(layers, desc="survey", unit="weight", leave=False):
        row: dict[str, Any] = {**describe(layer), "gaussian": None, "ratio": None, "broken": None}
        try:
            row |= measure(layer.matrices())
        except InputError as error:
            row["broken"] = str(error).removeprefix(f"{layer.name}: ")
        if row.get("correlation") is not None:
            row["gaussian"] = gaussian_correlation(layer.d_in, layer.vectors // layer.groups)
            row["ratio"] = row["correlation"] / row["gaussian"]
        rows.append(row)
    return sorted(rows, key=lambda row: (row["broken"] is not None, math.inf if row["ratio"] is None else row["ratio"]))


def _layer(
    name: str, tensor: Tensor, outputs: int | None, network: Mapping[str, int], given: Mapping[str, int]
) -> Layer:
    if name in given:
        return Layer(name, tensor, given[name], "given")
    if name in network:
        return Layer(name, tensor, network[name], "network")
    k, c = tensor.shape[:2]
    groups = 1
    if tensor.ndim > 2 and outputs is not None:
        wide = tensor[0, 0].numel() > 1
        if c == 1 and (outputs == k or (outputs > 1 and wide)):
            groups = k
        elif outputs == k and c < k and k % c == 0 and wide:
            groups = k // c
    return Layer(name, tensor, groups, "shapes")


def _is_weight(name: str, tensors: Mapping[str, Tensor]) -> bool:
    tensor = tensors[name]
    if not (2 <= tensor.ndim <= 5 and tensor.numel() and torch.is_floating_point(tensor)):
        return False
    *_, parent, last = ["", *name.split(".")]
    if "weight" not in last or _NORM.search(parent):
        return False
    bias = last.replace("weight", "bias")
    beside = f"{name.removesuffix(last)}{bias}"
    return not (tensor.ndim == 2 and _EMBEDDING.search(parent) and beside not in tensors)
