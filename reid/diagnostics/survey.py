"""Survey of the linear and convolution weights of a network, and how correlated each one is."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reid.decorrelation import gaussian_correlation
from reid.diagnostics.gram import products
from reid.diagnostics.spectral import describe_spectrum
from reid.diagnostics.weights import Layer, describe_layer, gaussian_vectors, measure_correlation
from reid.errors import InputError
from reid.progress import track

_EMBEDDING = re.compile(r"embed|^(wte|wpe)$")
# S(W) over its Gaussian value, and the exponent that Martin and Mahoney 2021 call heavy-tailed.
_NOTABLE, _HEAVY = 0.98, 6.0
_NORM = re.compile(r"(^|_)(bn|norm|ln)\d*$|norm$")


def find_layers(
    tensors: Mapping[str, Tensor],
    *,
    network: Mapping[str, int] | None = None,
    groups: Mapping[str, int] | None = None,
    source: str = "the weights",
) -> list[Layer]:
    """Find the weights of linear and convolution layers in a state dict.

    A state dict contains only names and shapes, so weights are recognized heuristically: floating tensors of two to
    five dimensions whose last name contains "weight", unless the parent is named like a normalization or, for two
    dimensions without a bias, like an embedding table (see `embedding_tables`). The names of `network` need no
    heuristic. A tensor that the heuristic misses is still found by `find_layer`. The first dimension is taken as the
    outputs, so transposed convolutions and GPT-2's transposed linear layers are misread.

    Groups are those given in `groups`, else those of `network`, else guessed from shapes. A convolution (K, c, ...)
    after a weight of P outputs, in the order of the file, is guessed to be

    - ordinary if the previous weight has c inputs too and c > 1: both are parallel branches (SqueezeNet),
    - depthwise (K groups) if c = 1 and P = K, or c = 1, P > 1 and the kernel is larger than 1x1,
    - of P / c groups if P = K or 2 P = K (split attention of ResNeSt), c divides P, c < P and the kernel is larger than
      1x1,
    - ordinary otherwise.

    The order of the file is not always that of the data, and grouped layers may change the width, so the guess can be
    wrong. `Layer.groups_from` states where the groups come from.

    Args:
        tensors: State dict: tensor by name.
        network: Groups by tensor name, as `network_groups` returns them.
        groups: Groups by layer name, with or without ".weight", as the user gives them.
        source: What error messages call the state dict, such as its path.

    Returns:
        The layers in the order of the state dict.

    Raises:
        InputError: If a name in `groups` is unknown, or its groups do not divide the kernels.
    """
    layers: list[Layer] = []
    user_groups = {find_tensor(tensors, name, source): number for name, number in (groups or {}).items()}
    previous: Tensor | None = None
    for name, tensor in tensors.items():
        if not (_is_weight(name, tensors) or (name in (network or {}) and _has_matrix(tensor))):
            continue
        layers.append(_layer(name, tensor, previous, network or {}, user_groups))
        previous = tensor
    return layers


def embedding_tables(tensors: Mapping[str, Tensor], layers: Sequence[Layer]) -> list[str]:
    """List the matrices that `find_layers` left out because they are named like embedding tables.

    A linear layer without bias that is named so, `embedding.weight`, looks just like one.

    Args:
        tensors: State dict: tensor by name.
        layers: Value of `find_layers`.

    Returns:
        Names in the order of the state dict.
    """
    found = {layer.name for layer in layers}
    return [name for name in tensors if name not in found and _is_weight(name, tensors, with_tables=True)]


def find_layer(tensors: Mapping[str, Tensor], layers: Sequence[Layer], name: str, source: str = "the weights") -> Layer:
    """Find a layer by name.

    Args:
        tensors: State dict: tensor by name.
        layers: Layers found in it; a tensor that is not among them becomes a layer without groups.
        name: Name of the tensor, with or without ".weight".
        source: What error messages call the state dict.

    Returns:
        One of `layers`, or a layer without groups for another tensor.

    Raises:
        InputError: If the name is unknown (similar names are suggested), or the tensor is not a matrix.
    """
    full = find_tensor(tensors, name, source)
    return next((layer for layer in layers if layer.name == full), None) or Layer(full, tensors[full])


def find_tensor(tensors: Mapping[str, Tensor], name: str, source: str = "the weights") -> str:
    """Find the full name of a tensor.

    Args:
        tensors: State dict: tensor by name.
        name: Name of the tensor, with or without ".weight".
        source: What error messages call the state dict.

    Returns:
        The name in `tensors`.

    Raises:
        InputError: If the name is unknown; similar names are suggested.
    """
    weights = [other for other in tensors if _is_weight(other, tensors)] or list(tensors)
    return find_name(tensors, name, weights, source, advice="without --layer all are listed")


def find_name(known: Collection[str], name: str, weights: Sequence[str], source: str, advice: str = "") -> str:
    """Find a name that may lack ".weight".

    Args:
        known: All full names.
        name: Name with or without ".weight".
        weights: The names to suggest.
        source: What error messages call the network.
        advice: End of the error message.

    Returns:
        The full name.

    Raises:
        InputError: If the name is unknown; similar names are suggested.
    """
    for full in (name, f"{name}.weight"):
        if full in known:
            return full
    near = difflib.get_close_matches(name, [*weights, *(w.removesuffix(".weight") for w in weights)], n=6, cutoff=0.5)
    candidates = [other if other in known else f"{other}.weight" for other in near]
    candidates += [other for other in weights if name and name in other]
    suggested = list(dict.fromkeys(candidates))[:3]
    hint = f"did you mean {' or '.join(suggested)}?" if suggested else f"it has {len(weights)} weights;"
    raise InputError(f"{source}: no layer {name!r}; {hint} {advice}".rstrip("; "))


def network_groups(model: nn.Module) -> dict[str, int]:
    """List the groups of every linear and convolution weight of a network, projections of attention included.

    Args:
        model: Any network; only its modules are inspected.

    Returns:
        Groups by the names of its state dict.
    """
    groups: dict[str, int] = {}
    for name, module in model.named_modules():
        names = ["weight"] if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) else []
        if isinstance(module, nn.MultiheadAttention):
            projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
            names = [key for key in projections if getattr(module, key) is not None]
        groups |= {f"{name}.{key}".lstrip("."): int(getattr(module, "groups", 1)) for key in names}
    return groups


def survey(layers: Sequence[Layer], *, seed: int = 0) -> list[dict[str, Any]]:
    """Measure the correlation and the spectrum of every layer.

    Args:
        layers: Value returned by `find_layers`.
        seed: Seed of the shuffled weights.

    Returns:
        The rows of `survey_layer`, sorted by "ratio", smallest first, since S(W) itself decreases with the number of
        vectors and cannot be compared across shapes. Layers without pairs of living vectors (depthwise) follow, then
        those without numbers.
    """
    rows = [survey_layer(layer, seed=seed) for layer in track(layers, "survey", unit="weights")]
    return sorted(rows, key=lambda row: (row["broken"] is not None, math.inf if row["ratio"] is None else row["ratio"]))


def survey_layer(layer: Layer, *, seed: int = 0, spectra: bool = True) -> dict[str, Any]:
    """Measure the correlation and the spectrum of a layer.

    Args:
        layer: Weight of a linear or convolution layer.
        seed: Seed of the shuffled weights.
        spectra: Whether to measure "spectral".

    Returns:
        Plain values: those of `weights.describe_layer` and `weights.measure_correlation`; "gaussian", the expected S(W)
        of as many Gaussian vectors of the same length, dead ones not counted; "ratio", S(W) over that value, 1 for
        independent vectors and below 1 for more correlated ones; "spectral", as `spectral.describe_spectrum` returns
        it, else None; "broken", why there are no numbers (NaN, all zero, too many vectors), or None.
    """
    row: dict[str, Any] = {**describe_layer(layer), "gaussian": None, "ratio": None, "spectral": None, "broken": None}
    try:
        known = products(matrices := layer.matrices())
        row |= measure_correlation(matrices, known)
        row["spectral"] = describe_spectrum(layer, seed=seed, squares=known.squares) if spectra else None
    except InputError as error:
        row["broken"] = str(error).removeprefix(f"{layer.name}: ")
    if row.get("correlation") is not None:
        alive = gaussian_vectors(layer.vectors, layer.groups, row["dead_vectors"])
        row["gaussian"] = gaussian_correlation(layer.d_in, alive)
        row["ratio"] = row["correlation"] / row["gaussian"]
    return row


def first_to_look_at(rows: Sequence[Mapping[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    """Choose the layers of a survey whose weight vectors are most correlated, with what is notable about them.

    Args:
        rows: Value returned by `survey`.
        count: Maximum number of layers.

    Returns:
        Entries {"name", "why"}, most notable first. "why" lists phrases, of which the first compares S(W) with chance,
        and the others, where they apply, count dead vectors, tell of linear dependence, compare the eigenvalues above
        the Marchenko-Pastur bulk with those of the shuffled weight, and give alpha. Layers within 2 % of chance or
        above it without dead or dependent vectors are not listed.
    """
    chosen = []
    for row in rows:
        dependent = row.get("severest_pair") == 0.0 and row["k"] // row["groups"] <= row["d_in"]
        if row["ratio"] is not None and (row["ratio"] < _NOTABLE or dependent or row["dead_vectors"]):
            chosen.append({"name": row["name"], "why": _notable(row, dependent)})
    return chosen[:count]


def _notable(row: Mapping[str, Any], dependent: bool) -> list[str]:
    phrases = [f"S(W) is {row['ratio']:.2f} times what chance makes of it"]
    if row["dead_vectors"]:
        phrases.append(f"{row['dead_vectors']:,} of {row['k']:,} weight vectors are dead")
    if dependent:
        phrases.append("some vectors are linear combinations of others")
    spectral = row["spectral"] or {}
    if spectral.get("num_spikes"):
        phrases.append(
            f"{spectral['num_spikes']:,} of {spectral['num_evals']:,} eigenvalues are above the Marchenko–Pastur bulk, "
            f"{spectral['shuffled']['num_spikes']:,} after a shuffle of the entries"
        )
    if spectral.get("alpha") is not None and spectral["alpha"] < _HEAVY:
        phrases.append(f"a heavy tail of the spectrum, α = {spectral['alpha']:.2f}")
    return phrases


def _layer(
    name: str, tensor: Tensor, previous: Tensor | None, network: Mapping[str, int], user_groups: Mapping[str, int]
) -> Layer:
    if name in user_groups:
        return Layer(name, tensor, user_groups[name], "given")
    if name in network:
        return Layer(name, tensor, network[name], "network")
    k, c = tensor.shape[:2]
    groups = 1
    if tensor.ndim > 2 and previous is not None and not 1 < c == previous.shape[1]:
        outputs, wide = len(previous), tensor[0, 0].numel() > 1
        if c == 1 and (outputs == k or (outputs > 1 and wide)):
            groups = k
        elif k in (outputs, 2 * outputs) and c < outputs and outputs % c == 0 and wide:
            groups = outputs // c
    return Layer(name, tensor, groups, "shapes")


def _is_weight(name: str, tensors: Mapping[str, Tensor], *, with_tables: bool = False) -> bool:
    tensor = tensors[name]
    if not _has_matrix(tensor):
        return False
    *_, parent, last = ["", *name.split(".")]
    if "weight" not in last or _NORM.search(parent):
        return False
    bias = f"{name.removesuffix(last)}{last.replace('weight', 'bias')}"
    return with_tables or not (tensor.ndim == 2 and _EMBEDDING.search(parent) and bias not in tensors)


def _has_matrix(tensor: Tensor) -> bool:
    return 2 <= tensor.ndim <= 5 and tensor.numel() > 0 and torch.is_floating_point(tensor)
