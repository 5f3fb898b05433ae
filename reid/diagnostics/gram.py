"""Gram matrices of weight vectors, and the cosines between these: their image, their histogram and the largest ones."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.stats import beta
from threadpoolctl import threadpool_limits
from torch import Tensor

from reid.decorrelation import vector_lengths
from reid.threads import thread_count

MAX_PIXELS = 512
BINS = 200
# Optimal leaf ordering is cubic in the number of vectors, clustering quadratic.
_MAX_OPTIMAL, _MAX_CLUSTERED = 512, 6_000
# Eigenvalues of a Gram matrix below this share of the largest have lost half of their digits to rounding.
_INACCURATE = 1e-8


@dataclass(frozen=True)
class Products:
    """What the measures of a weight have in common; most of the time of a survey is spent on it.

    Attributes:
        gram: (groups, K, K) float64, W^T W of each group.
        squares: (groups, min(D, K)) float64, the squared singular values of each group, ascending.
    """

    gram: Tensor
    squares: Tensor


def products(matrices: Tensor) -> Products:
    """Compute the Gram matrices and the squared singular values.

    Args:
        matrices: (groups, D, K) float64, finite, on the CPU.

    Returns:
        Both.
    """
    gram = _gram(matrices)
    return Products(gram, _squares(matrices, gram) if gram.shape[1] <= matrices.shape[1] else squares(matrices))


def squares(matrices: Tensor) -> Tensor:
    """Compute squared singular values, as eigenvalues of the smaller Gram matrix, which takes half the time of an SVD.

    Where the smallest is below 1e-8 of the largest, and rounding of the product would show, they are found by an SVD.

    Args:
        matrices: (count, rows, columns) float64, finite, on the CPU.

    Returns:
        (count, min(rows, columns)) float64, ascending.
    """
    tall = matrices if matrices.shape[1] >= matrices.shape[2] else matrices.transpose(1, 2)
    return _squares(matrices, _gram(tall))


def _gram(matrices: Tensor) -> Tensor:
    # NumPy computes only one half of a product of a matrix with its transpose.
    array = matrices.numpy()
    with _as_many_threads_as_pytorch():
        return torch.from_numpy(array.transpose(0, 2, 1) @ array)


def _as_many_threads_as_pytorch() -> threadpool_limits:
    return threadpool_limits(thread_count(), user_api="blas")


def _squares(matrices: Tensor, gram: Tensor) -> Tensor:
    # NumPy's LAPACK needs two thirds of the time of PyTorch's.
    with _as_many_threads_as_pytorch():
        found = torch.from_numpy(np.linalg.eigvalsh(gram.numpy()))
    inaccurate = found[:, 0] < _INACCURATE * found[:, -1]
    if bool(inaccurate.any()):
        found[inaccurate] = torch.linalg.svdvals(matrices[inaccurate]).square().flip(1)
    return found


def norms(matrices: Tensor) -> Tensor:
    """Compute the norms of all weight vectors.

    Args:
        matrices: (groups, D, K) float64, finite.

    Returns:
        (groups, K) float64.
    """
    groups, d_in, k = matrices.shape
    return vector_lengths(matrices.transpose(0, 1).reshape(d_in, groups * k)).reshape(groups, k)


def living(lengths: Tensor, d_in: int) -> Tensor:
    """Tell living from dead weight vectors, whose length is below the rounding error of the longest in float64.

    A dead vector, often left behind by weight decay at lengths of 1e-40, has no effect on the output of the layer, and
    its direction has no meaning.

    Args:
        lengths: (groups, K) float64, as `norms` returns them.
        d_in: D, entries of a vector.

    Returns:
        (groups, K) bool, whether the length is above max(D, K) eps times the longest of all groups, the limit of
        `torch.linalg.matrix_rank`; False for zero vectors.
    """
    rounding = max(d_in, lengths.shape[1]) * torch.finfo(lengths.dtype).eps
    return lengths > rounding * lengths.max()


def cosines(matrices: Tensor, gram: Tensor | None = None) -> Tensor:
    """Compute the cosines of all pairs of weight vectors of each group.

    Args:
        matrices: (groups, D, K) float64.
        gram: Their Gram matrices, (groups, K, K), if these are known.

    Returns:
        (groups, K, K) float64; NaN for pairs with a dead vector (see `living`), 0 on the diagonal.
    """
    lengths = norms(matrices)
    known = torch.where(living(lengths, matrices.shape[1]), lengths, torch.nan)
    cosine = (_gram(matrices) if gram is None else gram) / known[:, None]
    cosine.div_(known[:, :, None]).clamp_(-1.0, 1.0)
    cosine.diagonal(dim1=1, dim2=2).zero_()
    return cosine


def most_correlated(cosine: Tensor, count: int, *, signed: bool = False) -> list[dict[str, Any]]:
    """Find the pairs of vectors with the largest |cos|.

    Args:
        cosine: (groups, K, K); the vectors of the second group are numbered K, K + 1, ... and so on.
        count: Maximum number of pairs.
        signed: Compare cos instead of |cos|.

    Returns:
        Pairs of living vectors with "first" < "second", counted from 0, and "cos"; largest first.
    """
    k = cosine.shape[1]
    values = _upper_triangle(cosine)
    scores = (values.clone() if signed else values.abs()).flatten().nan_to_num_(nan=-torch.inf)
    chosen = scores.topk(min(count, values.numel())).indices
    chosen = chosen[scores[chosen] > -torch.inf]
    group, position = chosen // values.shape[1], chosen % values.shape[1]
    # Row i of the upper triangle starts after the k - 1, k - 2, ... pairs of the rows before it.
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(k - 1, 0, -1).cumsum(0)])
    i = torch.searchsorted(starts, position, right=True) - 1
    j = position - starts[i] + i + 1
    offset = group * k
    return [
        {"first": first, "second": second, "cos": value}
        for first, second, value in zip(
            (i + offset).tolist(), (j + offset).tolist(), values.flatten()[chosen].tolist(), strict=True
        )
    ]


def cosine_histogram(cosine: Tensor, d_in: int) -> dict[str, Any]:
    """Count pairs of living vectors by cosine in equal bins over [-1, 1].

    The cosine c of two Gaussian vectors of D entries has (c + 1) / 2 distributed as Beta((D - 1) / 2, (D - 1) / 2).

    Args:
        cosine: (groups, K, K).
        d_in: D, number of entries of a vector.

    Returns:
        "counts": `BINS` integers. "gaussian": `BINS` floats, the expected counts for as many pairs of Gaussian vectors.
    """
    # NaN is in no bin.
    counts = np.histogram(_upper_triangle(cosine).numpy(), bins=BINS, range=(-1.0, 1.0))[0]
    shape = max((d_in - 1) / 2, 1e-9)
    expected = np.diff(beta.cdf(np.linspace(0.0, 1.0, BINS + 1), shape, shape)) * counts.sum()
    return {"counts": counts.tolist(), "gaussian": expected.tolist()}


def _upper_triangle(cosine: Tensor) -> Tensor:
    """The upper triangles, row after row, (groups, K (K - 1) / 2)."""
    k = cosine.shape[1]
    return cosine[:, torch.ones(k, k, dtype=torch.bool).triu(1)]


def cosine_image(cosine: Tensor) -> dict[str, Any]:
    """Render |cos| of all pairs as a square image with similar vectors next to each other.

    The diagonal is 1. Vectors of different groups, which see different inputs, have 0, and so have dead ones.

    Args:
        cosine: (groups, K, K).

    Returns:
        Plain values:

        - order: K indices, the order of the vectors by hierarchical clustering (average linkage of 1 - |cos|).
        - clustered: False for more than 6,000 vectors, which keep the order of the file.
        - block: rows and columns per pixel; a pixel shows the largest |cos| between two different vectors.
        - size: pixels per side, at most 512.
        - pixels: base64 of size * size bytes, row by row, |cos| times 255, rounded.
    """
    absolute = (torch.block_diag(*cosine) if len(cosine) > 1 else cosine[0]).abs().nan_to_num_(0.0).numpy()
    size = len(absolute)
    clustered = size <= _MAX_CLUSTERED
    order = _cluster_order(absolute) if clustered else np.arange(size)
    block = -(-size // MAX_PIXELS)
    ordered = absolute[np.ix_(order, order)]
    if block > 1:
        starts = np.arange(0, size, block)
        ordered = np.maximum.reduceat(np.maximum.reduceat(ordered, starts, axis=0), starts, axis=1)
    else:
        np.fill_diagonal(ordered, 1.0)
    pixels = np.rint(ordered * 255).astype(np.uint8)
    return {
        "order": order.tolist(),
        "clustered": clustered,
        "block": block,
        "size": len(pixels),
        "pixels": base64.b64encode(pixels.tobytes()).decode("ascii"),
    }


def _cluster_order(absolute: np.ndarray) -> np.ndarray:
    distance = 1.0 - absolute
    np.fill_diagonal(distance, 0.0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, method="average")
    if len(absolute) <= _MAX_OPTIMAL:
        tree = optimal_leaf_ordering(tree, condensed)
    return leaves_list(tree)
