"""Replace a weight matrix, in general by one with orthogonal columns (the decorrelate step of SVDNet, Sun et al. 2017).

With W = U S V^T every variant is W_new = W M, so that the layer's output becomes f_new = M^T f. A classifier C on f
keeps its logits when it becomes C M^{-T}; `Replacement.classifier_transform` is M^{-T}, computed without
dividing by a singular value:

    variant   W_new    M             M^{-T}
    US        U S P    V P           V P
    U         U P      V S^-1 P      V S P
    UVt       U V^T    V S^-1 V^T    V S V^T
    QD        Q D      R^-1 D        R^T D^-1      (W = Q R, D the diagonal of R)
    rotate    W R      R             R             (R random orthogonal, from the Haar measure)
    none      W        I             I

`rotate` is the foil of US. Both keep every distance between outputs and all singular values, and both change the logits
of the classifier; but the columns of W R are as correlated as random rotation makes them.

The SVD leaves the order and the signs of U's columns free; P, a permutation with signs, determines them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid.decorrelation.correlation import float64_matrix
from reid.errors import InputError, unknown_name

VARIANTS = ("US", "U", "UVt", "QD", "rotate", "none")
ORDERS = ("assignment", "greedy", "sorted")


@dataclass(frozen=True)
class Replacement:
    """A replaced weight matrix; all three tensors are float64 and on the device of the original.

    Attributes:
        weight: The new W, (D_in, K).
        classifier_transform: (K, K); `classifier @ classifier_transform` keeps the logits of a classifier (classes, K).
        singular_values: Singular values of the original W, (K,), descending.
    """

    weight: Tensor
    classifier_transform: Tensor
    singular_values: Tensor


def replace_weight(weight: Tensor, *, variant: str = "US", order: str = "assignment", seed: int = 0) -> Replacement:
    """Replace W by a matrix with orthogonal columns; "rotate" and "none" serve comparison.

    US and rotate preserve the Euclidean distances between outputs; U and UVt share another set of distances.

    Args:
        weight: W, (D_in, K) floating, whose columns are the weight vectors.
        variant: One of `VARIANTS`.
        order: Which singular vector replaces which column, for US and U (UVt and QD have their own order):
            "assignment" is the one-to-one match with the largest sum of |cos| to the old columns, with the sign of the
            cosine; it does not depend on the order in which columns are visited. "greedy" takes column by column the
            best |cos| still available, with the sign of the cosine (the authors' script). "sorted" is by singular
            value, as the SVD returns them, signs unchanged (the authors' first CaffeNet rounds).
        seed: Decides the matrix R of "rotate".

    Returns:
        New W, transform of the classifier, and singular values of the original W.

    Raises:
        InputError: If K > D_in, the matrix is empty or not finite, a name is unknown, or, for QD, a diagonal entry of R
            is zero within rounding.
    """
    if variant not in VARIANTS:
        raise unknown_name("decorrelation variant", variant, VARIANTS)
    if order not in ORDERS:
        raise unknown_name("column order", order, ORDERS)
    matrix = float64_matrix(weight)
    d_in, k = matrix.shape
    if k > d_in:
        raise InputError(
            f"{k} weight vectors of {d_in} dimensions cannot all be orthogonal; the Eigenlayer needs K <= D_in, "
            f"here at most {d_in}"
        )
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    right = right.T
    if variant == "none":
        return Replacement(matrix.clone(), torch.eye(k, dtype=matrix.dtype, device=matrix.device), values)
    if variant == "rotate":
        rotation = _random_rotation(k, seed).to(matrix.device)
        return Replacement(matrix @ rotation, rotation, values)
    if variant == "UVt":
        return Replacement(left @ right.T, (right * values) @ right.T, values)
    if variant == "QD":
        return Replacement(*_scaled_q(matrix), values)

    columns, signs = _order_columns(matrix, values, right, order)
    left, right, ordered = left[:, columns] * signs, right[:, columns] * signs, values[columns]
    if variant == "US":
        return Replacement(left * ordered, right, values)
    return Replacement(left, right * ordered, values)


def transform_classifier(classifier_weight: Tensor, classifier_transform: Tensor) -> Tensor:
    """Transform a classifier such that it keeps its logits after a replacement, computed in float64.

    Args:
        classifier_weight: C, (classes, K) floating.
        classifier_transform: M^{-T}, (K, K) float64, of a `Replacement`.

    Returns:
        C M^{-T}, (classes, K), in the dtype and on the device of `classifier_weight`.

    Raises:
        InputError: If the shapes do not match.
    """
    if classifier_weight.ndim != 2 or classifier_weight.shape[1] != len(classifier_transform):
        raise InputError(
            f"a classifier of shape {tuple(classifier_weight.shape)} does not fit the {len(classifier_transform)} "
            "outputs of this layer"
        )
    transformed = classifier_weight.detach().to(torch.float64) @ classifier_transform.to(classifier_weight.device)
    return transformed.to(classifier_weight.dtype)


def _order_columns(matrix: Tensor, values: Tensor, right: Tensor, order: str) -> tuple[Tensor, Tensor]:
    """Return per old column the singular vector that replaces it, (K,) int64, and its sign, (K,) float64."""
    k = len(values)
    if order == "sorted":
        return torch.arange(k, device=matrix.device), torch.ones_like(values)
    # w_i . u_j = s_j v_ij, exact up to rounding of s_1. A column shorter than that has no direction: it matches nothing
    # (cosine 0), and does not outweigh the other columns with an error divided by its tiny length.
    norms = torch.linalg.vector_norm(matrix, dim=0)
    rounding = max(matrix.shape) * torch.finfo(values.dtype).eps * values[0]
    cosine = (right * values / torch.where(norms > rounding, norms, torch.inf)[:, None]).cpu().numpy()
    chosen = _assignment(cosine) if order == "assignment" else _greedy(cosine)
    signs = np.where(cosine[np.arange(k), chosen] < 0, -1.0, 1.0)
    return torch.from_numpy(chosen).to(matrix.device), torch.from_numpy(signs).to(matrix.device)


def _assignment(cosine: np.ndarray) -> np.ndarray:
    """Return the permutation with the largest sum of |cosine[i, chosen[i]]|."""
    from scipy.optimize import linear_sum_assignment  # takes a second to import

    return linear_sum_assignment(np.abs(cosine), maximize=True)[1].astype(np.int64)


def _greedy(cosine: np.ndarray) -> np.ndarray:
    """Return row by row the largest |cosine| among the columns not yet taken; rows of zeros take what is left."""
    free = np.abs(cosine)
    chosen = np.empty(len(free), dtype=np.int64)
    for i in np.argsort(~free.any(axis=1), kind="stable"):
        chosen[i] = free[i].argmax()
        free[:, chosen[i]] = -1.0
    return chosen


def _random_rotation(k: int, seed: int) -> Tensor:
    """Draw a (K, K) float64 orthogonal matrix from the Haar measure (Mezzadri 2007)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((k, k)))
    return torch.from_numpy(q * np.sign(np.diagonal(r)))


def _scaled_q(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q D and R^T D^-1 of W = Q R; the signs LAPACK chose for the columns of Q cancel in Q D."""
    q, r = torch.linalg.qr(matrix)
    diagonal = r.diagonal()
    rounding = max(matrix.shape) * torch.finfo(r.dtype).eps * float(r.abs().max())
    zero = torch.nonzero(diagonal.abs() <= rounding).flatten()
    if len(zero):
        raise InputError(
            f"variant QD needs linearly independent weight vectors, but {len(zero)} of {len(diagonal)} are not, the "
            f"first is column {int(zero[0])}; use US, which needs no full rank"
        )
    return q * diagonal, r.T / diagonal
