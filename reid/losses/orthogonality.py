"""Rivals of SVDNet: penalties that pull the Eigenlayer's weight vectors toward orthogonality while it trains.

W is (D_in, K) floating, its columns the weight vectors; each penalty is a float32 scalar, differentiable in W. All but
`svmo` pull toward WᵀW = I. SVDNet's own fixed point is any diagonal WᵀW, so these ask for more: equal lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 10  # of a power iteration


def so(vectors: Tensor) -> Tensor:
    """Soft orthogonality, ‖WᵀW - I‖_F² (Bansal, Chen, Wang 2018)."""
    return _beyond_identity(vectors.float().T).square().sum()


def dso(vectors: Tensor) -> Tensor:
    """Double soft orthogonality, ‖WᵀW - I‖_F² + ‖WWᵀ - I‖_F² (Bansal, Chen, Wang 2018).

    Where K < D_in the second term cannot be 0: it is D_in - K at best.
    """
    return so(vectors) + _beyond_identity(vectors.float()).square().sum()


def srip(vectors: Tensor) -> Tensor:
    """Spectral restricted isometry property, σ(WᵀW - I), the largest singular value (Bansal, Chen, Wang 2018).

    By power iteration, as there, but to STEPS steps from a fixed start where the released code takes one and squares.
    σ is the length of (WᵀW - I)v: in vᵀ(WᵀW - I)v eigenvalues of both signs, alike in size, would cancel.
    """
    beyond = _beyond_identity(vectors.float().T)
    return torch.linalg.vector_norm(beyond @ _largest(beyond)[1])


def svmo(vectors: Tensor) -> Tensor:
    """Spectral value difference, (λ_max - λ_min)² of WᵀW (ABD-Net's released code, where it is weighted by 10β = 0.01).

    λ_max by power iteration on WᵀW, λ_min by one on WᵀW - λ_max I, as there.
    """
    gram = vectors.float().T @ vectors.float()
    largest, _ = _largest(gram)
    _, direction = _largest(gram - largest.detach() * torch.eye(len(gram), device=gram.device))
    smallest = direction @ gram @ direction
    return (largest - smallest).square()


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"so": so, "dso": dso, "srip": srip, "svmo": svmo}


def _beyond_identity(rows: Tensor) -> Tensor:
    return rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)


def _largest(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalue of largest magnitude of a symmetric matrix, and its unit direction, which has no gradient.

    At the eigenvector the gradient of vᵀAv by A is that of the eigenvalue, so the steps need none.
    """
    with torch.no_grad():
        # Every direction has a part of this one; it is the same in every step of a training.
        start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0))
        direction = torch.nn.functional.normalize(start.to(matrix), dim=0)
        for _ in range(STEPS):
            direction = torch.nn.functional.normalize(matrix @ direction, dim=0)
    return direction @ matrix @ direction, direction
