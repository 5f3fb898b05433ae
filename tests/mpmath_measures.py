"""The measures of correlation to hundreds of digits, as a reference for columns of any length."""

from __future__ import annotations

from typing import Any

import mpmath
import torch

DIGITS = 220


def measures(matrices: list[torch.Tensor]) -> dict[str, float]:
    """Measure the block-diagonal G of (D, K) blocks without zero columns, K <= D, from its eigenvalues.

    Squares of lengths from 1 to 1e-45 span 90 digits; the rest is for eigenvalues far below the shortest square.
    """
    with mpmath.workdps(DIGITS):
        grams = [_gram(matrix) for matrix in matrices]
        eigenvalues = sorted((e for gram in grams for e in mpmath.eigsy(gram, eigvals_only=True)), reverse=True)
        squares = [gram[i, i] for gram in grams for i in range(gram.rows)]
        cosines = [
            abs(gram[i, j]) / mpmath.sqrt(gram[i, i] * gram[j, j])
            for gram in grams
            for j in range(gram.rows)
            for i in range(j)
        ]
        total = mpmath.fsum(squares)
        found: dict[str, Any] = {
            "correlation": total / mpmath.fsum(abs(entry) for gram in grams for entry in gram),
            "severest_pair": max(eigenvalues[-1], 0) / min(squares),
            "condition_number": mpmath.sqrt(eigenvalues[0] / eigenvalues[-1]),
            "effective_rank": mpmath.exp(-mpmath.fsum(e / total * mpmath.log(e / total) for e in eigenvalues)),
            "stable_rank": total / eigenvalues[0],
            "largest_cosine": max(cosines),
            "mean_cosine": mpmath.fsum(cosines) / len(cosines),
            "norm_ratio": mpmath.sqrt(max(squares) / min(squares)),
        }
        return {name: float(value) for name, value in found.items()}


def families(d_in: int, k: int) -> dict[str, torch.Tensor]:
    """(D, K) float64 matrices whose columns are independent, correlated or orthogonal, or have near twins."""
    generator = torch.Generator().manual_seed(d_in)
    independent = torch.randn(d_in, k, generator=generator, dtype=torch.float64)
    shared = torch.randn(d_in, 1, generator=generator, dtype=torch.float64)
    twins = independent.clone()
    twins[:, -1] = independent[:, 0] + 1e-4 * independent[:, -1]
    return {
        "independent": independent,
        "correlated": independent + 2 * shared,
        "orthogonal": torch.linalg.qr(independent).Q,
        "twins": twins,
    }


def lengths(k: int, shortest: float) -> torch.Tensor:
    """(K,) float64 factors from 1 to `shortest`, evenly spaced by their logarithm, the longest in the middle."""
    return shortest ** ((torch.arange(k, dtype=torch.float64) + k // 2) % k / (k - 1))


def _gram(matrix: torch.Tensor) -> Any:
    exact = mpmath.matrix(matrix.to(torch.float64).tolist())
    return exact.T * exact
