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

    The smallest singular value of an SVD is exact up to rounding of the largest one, which is useless for columns of
    very different lengths. With W = B D, B the columns scaled to unit length and D their lengths, the square root of
    the quotient is 1 / ||E R^-1||_2, where B = Q R and E = min(d) / d. Its relative error is of the order of
    eps cond(B), whatever D is: QR is backward stable column by column and a triangular inverse row by row (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", theorem 19.4 and section 14.2), and the factor E <= 1 scales the
    rows of both. More is not to be had: that is the effect of rounding the entries of W (Demmel and Veselic 1992,
    "Jacobi's method is more accurate than QR").

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        The quotient, in [0, 1]; 0 if the columns of B are linearly dependent up to rounding.

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    matrix = float64_matrix(weight)
    _check_nonzero(matrix)
    if matrix.shape[1] > matrix.shape[0] or not bool(matrix.any(dim=0).all()):
        return 0.0
    directions, lengths = _normalized(matrix)
    triangle = torch.linalg.qr(directions, mode="r").R
    if not bool(triangle.diagonal().all()):
        return 0.0
    inverse = torch.linalg.solve_triangular(triangle, torch.eye(len(triangle)).to(triangle), upper=True)
    # NaN or infinite if the columns are so dependent that the inverse overflows.
    if not float(torch.linalg.matrix_norm(inverse)) * _rounding(matrix) < 1.0:
        return 0.0
    return min(1.0, float(torch.linalg.matrix_norm(inverse / lengths[:, None], ord=2)) ** -2)


def smallest_singular_value(weight: Tensor | nn.Linear) -> float:
    """Compute the smallest of the min(D_in, K) singular values.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        The value. For K <= D_in its relative accuracy is that of `severest_pair`, also for columns of very different
        lengths, and it is 0 if that is 0. For K > D_in it is exact up to rounding of the largest value, and 0 below.

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    matrix = float64_matrix(weight)
    if matrix.shape[1] <= matrix.shape[0]:
        return math.sqrt(severest_pair(matrix)) * float(vector_lengths(matrix).min())
    _check_nonzero(matrix)
    values = torch.linalg.svdvals(matrix)
    return float(values[-1]) if float(values[-1]) > _rounding(matrix) * float(values[0]) else 0.0


def condition_number(weight: Tensor | nn.Linear) -> float:
    """Compute the quotient of the largest and the smallest of the min(D_in, K) singular values.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        The quotient, at least 1, with the accuracy of `smallest_singular_value`; infinite if that is 0.

    Raises:
        InputError: If the matrix is empty, zero or not finite.
    """
    matrix = _unit_scale(weight)
    smallest = smallest_singular_value(matrix)
    return math.inf if smallest == 0.0 else max(1.0, float(torch.linalg.matrix_norm(matrix, ord=2)) / smallest)


def vector_lengths(weight: Tensor | nn.Linear) -> Tensor:
    """Compute the Euclidean lengths of the columns; the squares of their entries cannot under- or overflow.

    Args:
        weight: W, (D_in, K) floating, or a linear layer with these vectors.

    Returns:
        (K,) float64, on the device of `weight`.

    Raises:
        InputError: If the matrix is empty or not finite.
    """
    matrix = float64_matrix(weight)
    largest = matrix.abs().amax(dim=0)
    return torch.linalg.vector_norm(matrix / torch.where(largest > 0, largest, 1.0), dim=0) * largest


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
    _check_nonzero(matrix)
    return matrix / matrix.abs().max()


def _check_nonzero(matrix: Tensor) -> None:
    if not bool(matrix.any()):
        raise InputError(
            f"all entries of the {matrix.shape[0]} x {matrix.shape[1]} weight matrix are zero; it has no correlation"
        )


def _normalized(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns, which must not be zero, at unit length, and their lengths as multiples of the shortest.

    A multiple beyond the range of float64 is infinite.
    """
    largest = matrix.abs().amax(dim=0)
    columns = matrix / largest
    norms = torch.linalg.vector_norm(columns, dim=0)
    multiples = largest / largest.min() * norms
    return columns / norms, multiples / multiples.min()


def _rounding(matrix: Tensor) -> float:
    """Relative error of the largest singular value, as for `torch.linalg.matrix_rank`."""
    return max(matrix.shape) * torch.finfo(matrix.dtype).eps
