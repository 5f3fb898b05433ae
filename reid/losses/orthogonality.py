"""Baselines to SVDNet: penalties that pull the Eigenlayer's weight vectors toward orthogonality during training.

W is (D_in, K) floating, its columns the weight vectors; each penalty is a float32 scalar, differentiable in W. All but
`svmo` pull toward WᵀW = I. SVDNet's own fixed point is any diagonal WᵀW, so these demand more: equal lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_POWER_ITERATIONS = 10


def so(vectors: Tensor) -> Tensor:
    """Soft orthogonality, ‖WᵀW - I‖_F² (Bansal, Chen, Wang 2018).

    Args:
        vectors: W, (D_in, K) floating.

    Returns:
        Penalty, a float32 scalar, 0 for orthonormal columns.
    """
    return _gram_minus_identity(vectors.float().T).square().sum()


def dso(vectors: Tensor) -> Tensor:
    """Double soft orthogonality, ‖WᵀW - I‖_F² + ‖WWᵀ - I‖_F² (Bansal, Chen, Wang 2018).

    For K < D_in the second term cannot be 0: it is at least D_in - K.

    Args:
        vectors: W, (D_in, K) floating.

    Returns:
        Penalty, a float32 scalar.
    """
    return so(vectors) + _gram_minus_identity(vectors.float()).square().sum()


def srip(vectors: Tensor) -> Tensor:
    """Spectral restricted isometry property, σ(WᵀW - I), the largest singular value (Bansal, Chen, Wang 2018).

    Computed by power iteration, as in the paper, but with ten iterations from a fixed start, while the released code
    uses one and squares. σ is the length of (WᵀW - I)v: in vᵀ(WᵀW - I)v eigenvalues of opposite signs and similar size
    would cancel.

    Args:
        vectors: W, (D_in, K) floating.

    Returns:
        Penalty, a float32 scalar, 0 for orthonormal columns.
    """
    difference = _gram_minus_identity(vectors.float().T)
    return torch.linalg.vector_norm(difference @ _largest_eigenvalue(difference)[1])


def svmo(vectors: Tensor) -> Tensor:
    """Spectral value difference, (λ_max - λ_min)² of WᵀW (ABD-Net's released code, which weights it by 10β = 0.01).

    λ_max is computed by power iteration on WᵀW, λ_min by power iteration on WᵀW - λ_max I, as in that code.

    Args:
        vectors: W, (D_in, K) floating.

    Returns:
        Penalty, a float32 scalar, 0 if all singular values are equal.
    """
    gram = vectors.float().T @ vectors.float()
    largest, _ = _largest_eigenvalue(gram)
    _, direction = _largest_eigenvalue(gram - largest.detach() * torch.eye(len(gram), device=gram.device))
    smallest = direction @ gram @ direction
    return (largest - smallest).square()


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"so": so, "dso": dso, "srip": srip, "svmo": svmo}


def _gram_minus_identity(rows: Tensor) -> Tensor:
    return rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)


def _largest_eigenvalue(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalue of largest magnitude of a symmetric matrix, and its unit eigenvector without gradient.

    At the eigenvector v the gradient of vᵀAv with respect to A is that of the eigenvalue, so the iterations need none.
    """
    with torch.no_grad():
        # A random start has a component in every direction; it is the same in every training step.
        start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0))
        direction = functional.normalize(start.to(matrix), dim=0)
        for _ in range(_POWER_ITERATIONS):
            direction = functional.normalize(matrix @ direction, dim=0)
    return direction @ matrix @ direction, direction
