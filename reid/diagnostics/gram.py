"""The cosines between weight vectors: their picture, their histogram and the largest of them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.stats import beta
from torch import Tensor

MAX_PIXELS = 512
BINS = 200
# Ordering the leaves takes the cube of their number, the clustering itself the square.
_OPTIMAL, _CLUSTERED = 512, 6_000


def cosines(matrices: Tensor) -> Tensor:
    """The cosine of every pair of weight vectors, (groups, K, K) float64, for W of each group, (groups, D, K) float64.

    The diagonal is 0, and so is the cosine of a zero vector with any other.
    """
    norms = torch.linalg.vector_norm(matrices, dim=1, keepdim=True)
    directions = matrices / torch.where(norms > 0, norms, torch.ones_like(norms))
    found = (directions.transpose(1, 2) @ directions).clamp_(-1.0, 1.0)
    found.diagonal(dim1=1, dim2=2).zero_()
    return found


def most_correlated(cosine: Tensor, count: int, *, signed: bool = False) -> list[dict[str, Any]]:
    """The `count` pairs of largest |cos| (signed: of largest cos), largest first: first < second (from 0) and cos.

    cosine: (groups, K, K); the vectors of the second group are K, K + 1, ... and so on.
    """
    k = cosine.shape[1]
    values = _of_pairs(cosine)
    chosen = (values if signed else values.abs()).flatten().topk(min(count, values.numel())).indices
    group, place = chosen // values.shape[1], chosen % values.shape[1]
    # Row i of the upper triangle begins after the k - 1, k - 2, ... pairs of the rows before it.
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(k - 1, 0, -1).cumsum(0)])
    i = torch.searchsorted(starts, place, right=True) - 1
    j = place - starts[i] + i + 1
    offset = group * k
    return [
        {"first": first, "second": second, "cos": value}
        for first, second, value in zip(
            (i + offset).tolist(), (j + offset).tolist(), values.flatten()[chosen].tolist(), strict=True
        )
    ]


def cosine_histogram(cosine: Tensor, d_in: int) -> dict[str, Any]:
    """Pairs by cosine, in `BINS` equal bins over [-1, 1].

    counts: (BINS,) int. gaussian: (BINS,) float, what as many pairs of Gaussian vectors of D entries would give: the
    cosine c of two has (c + 1) / 2 distributed as Beta((D - 1) / 2, (D - 1) / 2).
    """
    counts = np.histogram(_of_pairs(cosine).numpy(), bins=BINS, range=(-1.0, 1.0))[0]
    shape = max((d_in - 1) / 2, 1e-9)
    expected = np.diff(beta.cdf(np.linspace(0.0, 1.0, BINS + 1), shape, shape)) * counts.sum()
    return {"counts": counts.tolist(), "gaussian": expected.tolist()}


def _of_pairs(cosine: Tensor) -> Tensor:
    """The upper triangles, row after row, (groups, K (K - 1) / 2)."""
    k = cosine.shape[1]
    return cosine[:, torch.ones(k, k, dtype=torch.bool).triu(1)]


def cosine_picture(cosine: Tensor) -> dict[str, Any]:
    """|cos| of all pairs as a square picture, similar vectors side by side; the diagonal, a vector with itself, is 1.

    Vectors of two groups see different inputs and stand there with 0. order: (K,) the vectors as they stand, by
    hierarchical clustering (average linkage of 1 - |cos|; beyond 6,000 vectors as they lie in the file, clustered
    False). block: so many rows and columns, the last perhaps fewer, are one
    pixel, which shows the largest |cos| between two different vectors among them. size: pixels a side, 512 at most.
    pixels: base64 of size * size bytes, row by row, |cos| times 255 rounded.
    """
    absolute = torch.block_diag(*cosine).abs_().numpy() if len(cosine) > 1 else cosine[0].abs().numpy()
    size = len(absolute)
    clustered = size <= _CLUSTERED
    order = _clustered(absolute) if clustered else np.arange(size)
    block = -(-size // MAX_PIXELS)
    placed = absolute[np.ix_(order, order)]
    if block > 1:
        starts = np.arange(0, size, block)
        placed = np.maximum.reduceat(np.maximum.reduceat(placed, starts, axis=0), starts, axis=1)
    else:
        np.fill_diagonal(placed, 1.0)
    pixels = np.rint(placed * 255).astype(np.uint8)
    return {
        "order": order.tolist(),
        "clustered": clustered,
        "block": block,
        "size": len(pixels),
        "pixels": base64.b64encode(pixels.tobytes()).decode("ascii"),
    }


def _clustered(absolute: np.ndarray) -> np.ndarray:
    distance = 1.0 - absolute
    np.fill_diagonal(distance, 0.0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, method="average")
    if len(absolute) <= _OPTIMAL:
        tree = optimal_leaf_ordering(tree, condensed)
    return leaves_list(tree)
