"""Correlation of the weight vectors of one layer: a summary, and a detailed diagnosis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reid.decorrelation import gaussian_correlation, smallest_singular_value
from reid.diagnostics import gaussian
from reid.diagnostics.gram import (
    Products,
    cosine_histogram,
    cosine_image,
    cosines,
    living,
    most_correlated,
    norms,
    products,
)
from reid.errors import InputError

# More vectors would need a float64 Gram matrix of over 2 GiB and minutes of computation.
MAX_VECTORS = 16_384
PAIRS = 20
# Squares of entries up to this value, and their sums, fit into float64.
MAX_MAGNITUDE = 1e140
# A smallest eigenvalue of the Gram matrix above this share of the largest has ten correct digits.
_ACCURATE = 1e-6


@dataclass(frozen=True)
class Layer:
    """The weight of a linear or convolution layer as stored in a state dict.

    Attributes:
        name: Name in the state dict.
        tensor: (K, D) of a linear layer or (K, C_in / groups, *kernel) of a convolution, floating; K outputs.
        groups: Number of groups; weight vectors of different groups see different inputs.
        groups_from: Where `groups` comes from: "given" by the user, the "network", or guessed from "shapes".
    """

    name: str
    tensor: Tensor
    groups: int = 1
    groups_from: str = "shapes"

    def __post_init__(self) -> None:
        if self.tensor.ndim < 2 or not self.tensor.numel() or not self.tensor.is_floating_point():
            raise InputError(
                f"{self.name}: a {self.tensor.dtype} tensor of shape {tuple(self.tensor.shape)} is not a weight of a "
                "linear or convolution layer"
            )
        if self.groups < 1 or len(self.tensor) % self.groups:
            raise InputError(f"{self.name}: {len(self.tensor)} kernels cannot be in {self.groups} groups")

    @property
    def d_in(self) -> int:
        """D, the number of entries of a weight vector: inputs, or C_in / groups * kernel height * width."""
        return self.tensor[0].numel()

    @property
    def vectors(self) -> int:
        """K, the number of weight vectors of all groups."""
        return len(self.tensor)

    @property
    def kind(self) -> str:
        """Type of the layer in words: linear, or (grouped, depthwise) convolution with its kernel size."""
        if self.tensor.ndim == 2:
            return "linear"
        kernel = "×".join(map(str, self.tensor.shape[2:]))
        grouped = "depthwise " if self.vectors == self.groups > 1 else "grouped " if self.groups > 1 else ""
        return f"{grouped}convolution {kernel}"

    def matrices(self) -> Tensor:
        """Convert the weight to a matrix per group.

        Returns:
            (groups, D, K / groups) float64; the columns are weight vectors.

        Raises:
            InputError: If entries are NaN or infinite, all are zero, their squares exceed the range of float64, or
                there are more than `MAX_VECTORS` weight vectors to compare.
        """
        if self.vectors > max(MAX_VECTORS, self.groups):
            raise InputError(
                f"{self.name}: {self.vectors:,} weight vectors are too many to compare; at most {MAX_VECTORS:,} are"
            )
        flat = self.tensor.detach().to("cpu", torch.float64)
        bad = torch.nonzero(~torch.isfinite(flat))
        if len(bad):
            examples = ", ".join(str(index) for index in bad[:5].tolist())
            raise InputError(
                f"{self.name}: {len(bad):,} of {flat.numel():,} entries are NaN or infinite, at {examples}"
                f"{', ...' if len(bad) > 5 else ''}; has the training diverged?"
            )
        largest = float(flat.abs().max())
        if largest == 0.0:
            raise InputError(f"{self.name}: all {flat.numel():,} entries are zero")
        if not 1 / MAX_MAGNITUDE <= largest <= MAX_MAGNITUDE:
            raise InputError(f"{self.name}: the square of its largest entry, {largest:.3g}, is out of float64's range")
        return flat.reshape(self.groups, self.vectors // self.groups, -1).transpose(1, 2)


def describe_layer(layer: Layer) -> dict[str, Any]:
    """Describe name, type and size of a layer.

    Args:
        layer: The layer; its values are not used.

    Returns:
        Plain values: "name", "kind", "d_in" (D), "k" (K), "groups", "groups_from" and "parameters".
    """
    return {
        "name": layer.name,
        "kind": layer.kind,
        "d_in": layer.d_in,
        "k": layer.vectors,
        "groups": layer.groups,
        "groups_from": layer.groups_from,
        "parameters": layer.tensor.numel(),
    }


def measure_correlation(matrices: Tensor, known: Products | None = None) -> dict[str, Any]:
    """Measure the correlation of weight vectors.

    G is block diagonal with a block W^T W per group: vectors of different groups see different inputs and form no
    pairs. A layer is thus one matrix of K columns.

    Dead vectors, which are zero or shorter than the rounding error of the longest (`gram.living`), are counted, and
    all other numbers are those of the living vectors. If no group has two of these (depthwise), there are no pairs,
    and all values except those of the norms are None.

    Args:
        matrices: (groups, D, K / groups) float64, finite and not all zero, as `Layer.matrices` returns them.
        known: Value of `gram.products`, if it is known.

    Returns:
        Plain numbers:

        - correlation: S(W) = sum_i g_ii / sum_ij |g_ij|.
        - severest_pair: min eig(G) / min diag(G).
        - condition_number: largest over smallest of the min(D, K / groups) singular values of all groups, K without
          dead vectors; None if the smallest is zero up to rounding.
        - effective_rank: exp of the entropy of the normalized eigenvalues of G (Roy and Vetterli 2007).
        - stable_rank: sum of the eigenvalues over the largest.
        - largest_cosine, mean_cosine: of |cos| over all pairs.
        - norm_ratio: largest over smallest norm.
        - dead_vectors: number of dead vectors, including zero ones.
        - zero_vectors: number of vectors of norm zero.
    """
    known = known or products(matrices)
    return _measured(matrices, known, cosines(matrices, known.gram) if matrices.shape[2] > 1 else None)


def gaussian_vectors(vectors: int, groups: int, dead: int) -> int:
    """Determine the number of vectors of the Gaussian matrices with which a layer is compared.

    Args:
        vectors: K of all groups.
        groups: Number of groups.
        dead: Number of dead vectors.

    Returns:
        Living vectors per group, on average and rounded; at least 2.
    """
    return max(2, round((vectors - dead) / groups))


def diagnose_layer(layer: Layer, *, seed: int = 0) -> dict[str, Any]:
    """Diagnose one layer in detail, with the values of a Gaussian matrix of its shape as reference.

    Args:
        layer: Weight of a linear or convolution layer.
        seed: Seed of the simulated Gaussian matrices.

    Returns:
        Plain values, in addition to those of `describe_layer` (those that need pairs of vectors are None or empty
        without any):

        - measured: as `measure_correlation` returns it.
        - formula, simulation: the same numbers by `gaussian.expected_values` and `gaussian.simulate`, for as many
          vectors as are alive (`gaussian_vectors`).
        - ratio: S(W) over that of the formula.
        - spectrum, spectrum_expected: all singular values, descending, and those of a Gaussian matrix with the same sum
          of squares.
        - norms: K norms in the order of the file.
        - norms_expected: norms of Gaussian vectors with the same sum of squares, descending.
        - histogram, pairs, gram: see `reid.diagnostics.gram`.

        Spectrum and norms include dead vectors.

    Raises:
        InputError: If `Layer.matrices` raises it.
    """
    matrices = layer.matrices()
    groups, d_in, k = matrices.shape
    known, lengths = products(matrices), norms(matrices).flatten()
    values = known.squares.flatten().sort(descending=True).values.sqrt()
    result: dict[str, Any] = {
        **describe_layer(layer),
        "norms": lengths.tolist(),
        "norms_expected": gaussian.expected_norms(d_in, groups * k, float((lengths**2).sum())),
        "spectrum": values.tolist(),
        "spectrum_expected": gaussian.expected_spectrum(d_in, k, groups, float((values**2).sum())),
    }
    cosine = cosines(matrices, known.gram) if k > 1 else None
    measured = _measured(matrices, known, cosine)
    if cosine is None or measured["correlation"] is None:
        missing: dict[str, Any] = {"ratio": None, "formula": None, "simulation": None, "histogram": None, "gram": None}
        return {**result, "measured": measured, **missing, "pairs": []}
    alive = gaussian_vectors(groups * k, groups, measured["dead_vectors"])
    formula = gaussian.expected_values(d_in, alive, groups)
    return {
        **result,
        "measured": measured,
        "formula": formula,
        "ratio": measured["correlation"] / gaussian_correlation(d_in, alive),
        "simulation": gaussian.simulate(d_in, alive, groups, measure=measure_correlation, seed=seed),
        "histogram": cosine_histogram(cosine, d_in),
        "pairs": most_correlated(cosine, PAIRS),
        "gram": cosine_image(cosine),
    }


def _measured(matrices: Tensor, known: Products, cosine: Tensor | None) -> dict[str, Any]:
    lengths = norms(matrices)
    alive = living(lengths, matrices.shape[1])
    counts = alive.sum(dim=1)
    pairs = int((counts * (counts - 1)).sum()) // 2
    result: dict[str, Any] = {
        "correlation": None,
        "severest_pair": None,
        "condition_number": None,
        "effective_rank": None,
        "stable_rank": None,
        "largest_cosine": None,
        "mean_cosine": None,
        "norm_ratio": float(lengths.max() / lengths[alive].min()),
        "dead_vectors": int((~alive).sum()),
        "zero_vectors": int((lengths == 0).sum()),
    }
    if cosine is None or not pairs:
        return result
    absolute = cosine.abs().nan_to_num_(0.0)
    # S(W) and the entropy and sum of the eigenvalues are the same with and without dead vectors.
    trace, largest = float(known.squares.sum()), float(known.squares.max())
    share = known.squares / trace
    share = share[share > 0]
    smallest = min(
        _smallest(matrix, own, squares)
        for matrix, own, squares in zip(matrices, alive, known.squares, strict=True)
        if bool(own.any())
    )
    independent = int(counts.max()) <= matrices.shape[1]
    return {
        **result,
        "correlation": min(1.0, float(known.gram.diagonal(dim1=1, dim2=2).sum() / known.gram.abs().sum())),
        "severest_pair": min(1.0, (smallest / float(lengths[alive].min())) ** 2) if independent else 0.0,
        "condition_number": max(1.0, math.sqrt(largest) / smallest) if smallest > 0.0 else None,
        "effective_rank": math.exp(float(-(share * share.log()).sum())),
        "stable_rank": trace / largest,
        "largest_cosine": float(absolute.max()),
        "mean_cosine": float(absolute.sum()) / (2 * pairs),
    }


def _smallest(matrix: Tensor, alive: Tensor, squares: Tensor) -> float:
    """The smallest singular value of the living vectors of a group."""
    if bool(alive.all()) and float(squares[0]) > _ACCURATE * float(squares[-1]):
        return math.sqrt(float(squares[0]))
    return smallest_singular_value(matrix[:, alive])
