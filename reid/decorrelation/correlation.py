"""Correlation of the weight vectors of a linear layer.

Throughout, `weight` is W of shape (D_in, K), any floating dtype, on any device that supports float64; its K columns are
the weight vectors. `torch.nn.Linear.weight` is the transpose: pass the layer itself, or `layer.weight.T`. G = W^T W is
its Gram matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reid.errors import InputError


def correlation_metric(weight: Tensor | nn.Linear) -> float:
    """Compute S(W) = sum_i g_ii / sum_ij |g_ij| (section 3.4 of Sun et al. 2017).

    It is 1 if all columns are orthogonal and 1/K if they coincide up to sign. It does not depend on the scale of W.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        S(W), in [1/K, 1].

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    columns = _unit_scale(weight)
    gram = columns.T @ columns
    # Rounding may lift the quotient of orthogonal columns slightly above one.
    return min(1.0, float(gram.diagonal().sum() / gram.abs().sum()))


def severest_pair(weight: Tensor | nn.Linear) -> float:
    """Compute min eig(G) / min diag(G), which the official SVDNet code prints as the state of the most severe pair.

    It is 1 if all columns are orthogonal and 0 if they are linearly dependent (a zero column or K > D_in included).

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        The quotient, in [0, 1].

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    columns = _unit_scale(weight)
    smallest_norm = float(torch.linalg.vector_norm(columns, dim=0).min())
    if columns.shape[1] > columns.shape[0] or smallest_norm == 0.0:
        return 0.0
    # The eigenvalues of G are the squared singular values of W, which keep twice the digits of an explicit G.
    return min(1.0, float(torch.linalg.svdvals(columns)[-1] / smallest_norm) ** 2)


def condition_number(weight: Tensor | nn.Linear) -> float:
    """Compute the quotient of the largest and the smallest of the min(D_in, K) singular values.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        The quotient, at least 1, infinite if the smallest value is zero.

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    values = torch.linalg.svdvals(_unit_scale(weight))
    return math.inf if float(values[-1]) == 0.0 else float(values[0] / values[-1])


def spectrum(weight: Tensor | nn.Linear) -> Tensor:
    """Compute the singular values.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        (min(D_in, K),) float64, descending, on the device of `weight`.

    Raises:
        InputError: If the matrix is empty or not finite.
    """
    return torch.linalg.svdvals(float64_matrix(weight))


def gaussian_correlation(d_in: int, k: int) -> float:
    """Compute the S(W) expected of a matrix with independent Gaussian entries, 1 / (1 + (K - 1) sqrt(2 / (pi D))).

    A column has E g_ii = D; two columns have E |g_ij| = sqrt(2 D / pi) for large D.

    Args:
        d_in: Number of rows D.
        k: Number of columns K.

    Returns:
        The expected S(W).

    Raises:
        InputError: If either is below 1.
    """
    if d_in < 1 or k < 1:
        raise InputError(f"a weight matrix must have at least one row and one column, not {d_in} x {k}")
    return 1.0 / (1.0 + (k - 1) * math.sqrt(2.0 / (math.pi * d_in)))


def float64_matrix(weight: Tensor | nn.Linear) -> Tensor:
    """Convert a weight to a detached float64 matrix on its own device.

    Args:
        weight: W, (D_in, K) floating, or a linear layer, whose `weight` is W transposed.

    Returns:
        W, (D_in, K) float64.

    Raises:
        InputError: If it is not a matrix, is empty or is not finite.
    """
    if isinstance(weight, nn.Linear):
        weight = weight.weight.T
    if not isinstance(weight, Tensor):
        raise InputError(
            f"a weight matrix must be a (D_in, K) tensor or an nn.Linear, not a {type(weight).__name__}; "
            "torch.as_tensor converts an array"
        )
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise InputError(
            f"a weight matrix must be a non-empty floating (D_in, K) tensor, not {weight.dtype} {tuple(weight.shape)}"
        )
    matrix = weight.detach().to(torch.float64)
    finite = torch.isfinite(matrix)
    if not bool(finite.all()):
        raise InputError(
            f"{int((~finite).sum())} of {matrix.numel()} entries of the {matrix.shape[0]} x {matrix.shape[1]} weight "
            "matrix are NaN or infinite; has the training diverged?"
        )
    return matrix


def _unit_scale(weight: Tensor | nn.Linear) -> Tensor:
    """Divide W by its largest entry, so that no square under- or overflows; the measures ignore the scale."""
    matrix = float64_matrix(weight)
    largest = matrix.abs().max()
    if float(largest) == 0.0:
        raise InputError(
            f"all entries of the {matrix.shape[0]} x {matrix.shape[1]} weight matrix are zero; it has no correlation"
        )
    return matrix / largest
