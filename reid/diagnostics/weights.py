"""How correlated the weight vectors of one layer are: the numbers of the survey, and all that a closer look adds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reid.decorrelation import correlation_metric, gaussian_correlation, spectrum
from reid.diagnostics import gaussian
from reid.diagnostics.gram import cosine_histogram, cosine_picture, cosines, most_correlated
from reid.errors import InputError

# Beyond it the Gram matrix of float64 takes more than 2 GiB, and the arithmetic minutes.
MAX_VECTORS = 16_384
PAIRS = 20
# Squares of entries and their sums stay within the range of float64; float32 and its like never come near.
LARGEST = 1e140


@dataclass(frozen=True)
class Layer:
    """The weight of a linear or convolution layer as it lies in a state dict, its first axis the K outputs.

    tensor: (K, D) of a linear layer or (K, C_in / groups, *kernel) of a convolution, floating. groups: the weight
    vectors of one group see the same input, those of two groups never do. groups_from: "given" by the caller, the
    "network" itself, or guessed from the "shapes".
    """

    name: str
    tensor: Tensor
    groups: int = 1
    groups_from: str = "shapes"

    def __post_init__(self) -> None:
        if self.tensor.ndim < 2 or not self.tensor.numel() or not self.tensor.is_floating_point():
            raise InputError(
                f"{self.name}: a {self.tensor.dtype} tensor of shape {tuple(self.tensor.shape)} is no weight of a "
                "linear or convolution layer"
            )
        if self.groups < 1 or len(self.tensor) % self.groups:
            raise InputError(f"{self.name}: {len(self.tensor)} kernels cannot be in {self.groups} groups")

    @property
    def d_in(self) -> int:
        """D, the entries of a weight vector: inputs, or C_in / groups * kernel height * width."""
        return self.tensor[0].numel()

    @property
    def vectors(self) -> int:
        """K, the weight vectors of all groups."""
        return len(self.tensor)

    @property
    def kind(self) -> str:
        """linear, or convolution with its kernel, grouped or depthwise."""
        if self.tensor.ndim == 2:
            return "linear"
        kernel = "×".join(map(str, self.tensor.shape[2:]))
        grouped = "depthwise " if self.vectors == self.groups > 1 else "grouped " if self.groups > 1 else ""
        return f"{grouped}convolution {kernel}"

    def matrices(self) -> Tensor:
        """W of every group, (groups, D, K / groups) float64: the columns are weight vectors.

        Raises InputError where some entries are NaN or infinite, saying how many and which, where all are zero or their
        squares leave the range of float64, and where there are more than `MAX_VECTORS` weight vectors to compare.
        """
        if self.vectors > max(MAX_VECTORS, self.groups):
            raise InputError(
                f"{self.name}: {self.vectors:,} weight vectors are too many to compare; at most {MAX_VECTORS:,} are"
            )
        flat = self.tensor.detach().to(torch.float64)
        bad = torch.nonzero(~torch.isfinite(flat))
        if len(bad):
            places = ", ".join(str(place) for place in bad[:5].tolist())
            raise InputError(
                f"{self.name}: {len(bad):,} of {flat.numel():,} entries are NaN or infinite, at {places}"
                f"{', ...' if len(bad) > 5 else ''}; has the training diverged?"
            )
        largest = float(flat.abs().max())
        if largest == 0.0:
            raise InputError(f"{self.name}: all {flat.numel():,} entries are zero")
        if not 1 / LARGEST <= largest <= LARGEST:
            raise InputError(f"{self.name}: the square of its largest entry, {largest:.3g}, is out of float64's range")
        return flat.reshape(self.groups, self.vectors // self.groups, -1).transpose(1, 2)


def describe(layer: Layer) -> dict[str, Any]:
    """What the layer is called and how large it is, nothing of which needs its values."""
    return {
        "name": layer.name,
        "kind": layer.kind,
        "d_in": layer.d_in,
        "k": layer.vectors,
        "groups": layer.groups,
        "groups_from": layer.groups_from,
        "parameters": layer.tensor.numel(),
    }


def measure(matrices: Tensor) -> dict[str, Any]:
    """The correlation of weight vectors (groups, D, K / groups) float64, as plain numbers.

    G is block diagonal with a block W^T W for each group: vectors of two groups never see the same input, so they make
    no pair. A layer is thus one matrix of K columns, and where a group has one vector (depthwise) there is no pair and
    all but the norms is None.

    correlation: S(W) = sum_i g_ii / sum_ij |g_ij|. severest_pair: min eig(G) / min diag(G). condition_number: largest
    over smallest of all min(D, K / groups) singular values of each group, None where the smallest is zero to rounding.
    effective_rank: exp of the entropy of the eigenvalues of G over their sum (Roy and Vetterli 2007). stable_rank: the
    sum of the eigenvalues over the largest. largest_cosine, mean_cosine: of |cos| over all pairs, 0 with a zero vector.
    norm_ratio: largest over smallest length, None where one is zero. zero_vectors: how many have length zero.
    The matrices are finite and not all zero, as `Layer.matrices` gives them.
    """
    return _measured(matrices, _spectra(matrices), cosines(matrices) if matrices.shape[2] > 1 else None)


def diagnose(layer: Layer, *, seed: int = 0) -> dict[str, Any]:
    """Everything about one layer, each number beside what a Gaussian matrix of its shape gives; plain values.

    `describe`; measured: what `measure` says; formula and simulation: what `gaussian.expected` and `gaussian.simulated`
    say of the same numbers; ratio: S(W) over that of the formula; spectrum and spectrum_expected: all singular values,
    descending, and those of a Gaussian matrix with the same sum of squares; norms: (K,) lengths in the file's order;
    norms_expected: those of Gaussian vectors with the same sum of squares, descending; histogram, pairs and gram: see
    `reid.diagnostics.gram`. Without pairs of vectors those that need one are None or empty.
    Raises InputError as `Layer.matrices` does.
    """
    matrices = layer.matrices()
    groups, d_in, k = matrices.shape
    values = _spectra(matrices)
    norms = torch.linalg.vector_norm(matrices, dim=1).flatten()
    told: dict[str, Any] = {
        **describe(layer),
        "norms": norms.tolist(),
        "norms_expected": gaussian.norms(d_in, groups * k, float((norms**2).sum())),
        "spectrum": values.tolist(),
        "spectrum_expected": gaussian.spectrum(d_in, k, groups, float((values**2).sum())),
    }
    if k == 1:
        none: dict[str, Any] = {"ratio": None, "formula": None, "simulation": None, "histogram": None, "gram": None}
        return {**told, "measured": _measured(matrices, values, None), **none, "pairs": []}
    cosine = cosines(matrices)
    measured, formula = _measured(matrices, values, cosine), gaussian.expected(d_in, k, groups)
    return {
        **told,
        "measured": measured,
        "formula": formula,
        "ratio": measured["correlation"] / gaussian_correlation(d_in, k),
        "simulation": gaussian.simulated(d_in, k, groups, measure=measure, seed=seed),
        "histogram": cosine_histogram(cosine, d_in),
        "pairs": most_correlated(cosine, PAIRS),
        "gram": cosine_picture(cosine),
    }


def _spectra(matrices: Tensor) -> Tensor:
    """The singular values of all groups, descending."""
    if matrices.shape[2] == 1:
        return torch.linalg.vector_norm(matrices, dim=1).flatten().sort(descending=True).values
    return torch.cat([spectrum(matrix) for matrix in matrices]).sort(descending=True).values


def _measured(matrices: Tensor, values: Tensor, cosine: Tensor | None) -> dict[str, Any]:
    _, d_in, k = matrices.shape
    norms = torch.linalg.vector_norm(matrices, dim=1).flatten()
    shortest, longest = float(norms.min()), float(norms.max())
    told: dict[str, Any] = {
        "correlation": None,
        "severest_pair": None,
        "condition_number": None,
        "effective_rank": None,
        "stable_rank": None,
        "largest_cosine": None,
        "mean_cosine": None,
        "norm_ratio": longest / shortest if shortest > 0 else None,
        "zero_vectors": int((norms == 0).sum()),
    }
    if cosine is None:
        return told
    largest, smallest = float(values[0]), float(values[-1])
    rounding = max(d_in, k) * torch.finfo(values.dtype).eps * largest
    independent = k <= d_in and shortest > 0
    share = values**2 / (values**2).sum()
    share = share[share > 0]
    return {
        **told,
        "correlation": _correlation(matrices),
        "severest_pair": min(1.0, (smallest / shortest) ** 2) if independent else 0.0,
        "condition_number": largest / smallest if smallest > rounding else None,
        "effective_rank": math.exp(float(-(share * share.log()).sum())),
        "stable_rank": float((values**2).sum()) / largest**2,
        "largest_cosine": float(cosine.abs().max()),
        "mean_cosine": float(cosine.abs().sum()) / (cosine.shape[0] * k * (k - 1)),
    }


def _correlation(matrices: Tensor) -> float:
    """S(W) of the block-diagonal Gram matrix, out of the S(W) of its blocks: sum tr G_b / sum (tr G_b / S_b)."""
    filled = [matrix for matrix in matrices if bool(matrix.any())]
    traces = [float((matrix**2).sum()) for matrix in filled]
    sums = [trace / correlation_metric(matrix) for trace, matrix in zip(traces, filled, strict=True)]
    return sum(traces) / sum(sums)
