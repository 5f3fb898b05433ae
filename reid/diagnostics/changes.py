"""What differs between two checkpoints of one network: weights layer by layer, and features of the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.diagnostics.survey import survey
from reid.diagnostics.weights import Layer
from reid.errors import InputError
from reid.progress import track

# What of a survey's row is shown of both sides.
SIDES = ("correlation", "ratio", "effective_rank", "condition_number", "severest_pair", "largest_cosine")
# The leading directions compared hold this share of the sum of squared singular values of the reference.
ENERGY = 0.9


def compare_layers(layers: Sequence[Layer], references: Sequence[Layer], *, seed: int = 0) -> dict[str, Any]:
    """Compare the layers of two networks that have the same name and shape.

    Args:
        layers: Layers of the network after a change.
        references: Layers of the network before it.
        seed: Seed of the shuffled weights of the surveys.

    Returns:
        "layers": an entry per common layer, the most changed first, those that cannot be compared last. It has "name",
        "kind", "d_in", "k", "groups", "before" and "after", each with the values of `SIDES`, and the result of
        `compare_matrices`, or "broken", why there is none. "unmatched": names that only one network has, or in another
        shape.

    Raises:
        InputError: If no layer is in both.
    """
    others = {layer.name: layer for layer in references}
    common = [
        layer for layer in layers if layer.name in others and layer.tensor.shape == others[layer.name].tensor.shape
    ]
    names = {layer.name for layer in common}
    unmatched = sorted({layer.name for layer in (*layers, *references)} - names)
    if not common:
        raise InputError(
            f"the two files have no layer of the same name and shape (such as {layers[0].name} and "
            f"{references[0].name}); compare checkpoints of one architecture"
        )
    after = {row["name"]: row for row in survey(common, seed=seed)}
    before = {row["name"]: row for row in survey([others[layer.name] for layer in common], seed=seed)}
    rows = []
    for layer in track(common, "comparison", unit="weights"):
        name = layer.name
        row = {key: after[name][key] for key in ("name", "kind", "d_in", "k", "groups", "groups_from")}
        row |= {"before": _side(before[name]), "after": _side(after[name])}
        row["broken"] = before[name]["broken"] or after[name]["broken"]
        if row["broken"] is None:
            row |= compare_matrices(layer.matrices(), others[name].matrices())
        rows.append(row)
    rows.sort(key=lambda row: -row.get("distance", -1.0))
    return {"layers": rows, "unmatched": unmatched}


def compare_matrices(after: Tensor, before: Tensor) -> dict[str, Any]:
    """Compare the weight vectors of a layer before and after a change.

    Args:
        after: (groups, D, K / groups) float64, as `Layer.matrices` returns them.
        before: The same of the reference.

    Returns:
        - distance: |A - B| / |B| in Frobenius norms.
        - cosine: of the two weights as vectors.
        - procrustes: min over orthogonal Q of |A - B Q| / |B|, the distance that no rotation of the outputs explains
          (Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem"); 0 after W is replaced by
          US, which is W V.
        - directions: number r of leading left singular vectors of B, directions in the space of the inputs, with 90 %
          of its energy, the mean over groups.
        - overlap: mean cos^2 of the principal angles between these and as many of A (Bjoerck and Golub 1973, "Numerical
          methods for computing angles between linear subspaces"); 1 for the same subspace. overlap_by_chance: r / D.
        - largest_angle: largest principal angle in degrees.
    """
    left, values, _ = torch.linalg.svd(after, full_matrices=False)
    other_left, other_values, _ = torch.linalg.svd(before, full_matrices=False)
    energy = other_values.square().cumsum(dim=1)
    counts = (energy < ENERGY * energy[:, -1:] * (1 - 1e-12)).sum(dim=1) + 1
    overlaps, largest = [], 0.0
    for own, other, count in zip(left, other_left, counts.tolist(), strict=True):
        cosines = torch.linalg.svdvals(other[:, :count].T @ own[:, :count])
        overlaps.append(float(cosines.square().mean()))
        # The sine is exact for small angles, the cosine is not.
        apart = own[:, :count] - other[:, :count] @ (other[:, :count].T @ own[:, :count])
        largest = max(largest, math.degrees(math.asin(min(1.0, float(torch.linalg.matrix_norm(apart, ord=2))))))
    square, other_square = float(after.square().sum()), float(before.square().sum())
    # The singular values of B^T A are those of this smaller matrix.
    inner = (other_values[:, :, None] * (other_left.transpose(1, 2) @ left)) * values[:, None, :]
    nuclear = float(torch.linalg.svdvals(inner).sum())
    rotated = max(0.0, square + other_square - 2 * nuclear)
    # Cancellation leaves the square with the rounding of its terms.
    rotated = 0.0 if rotated < 1e-13 * (square + other_square) else rotated
    r = float(counts.double().mean())
    return {
        "distance": math.sqrt(float((after - before).square().sum()) / other_square),
        "cosine": float((after * before).sum()) / math.sqrt(square * other_square),
        "procrustes": math.sqrt(rotated / other_square),
        "directions": r,
        "overlap": min(1.0, sum(overlaps) / len(overlaps)),
        "overlap_by_chance": r / after.shape[1],
        "largest_angle": largest,
    }


def compare_features(after: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Compare two embeddings of the same images, up to a rotation and a scale of either.

    Args:
        after: (N, D) floating.
        before: (N, E) floating, rows of the same images.

    Returns:
        - cka: linear centered kernel alignment in [0, 1], 1 for equal ones (Kornblith et al. 2019, "Similarity of
          neural network representations revisited", equation 5 with a linear kernel).
        - procrustes: 2 - 2 |X^T Y|_* in [0, 2] of the centered embeddings at Frobenius norm 1, 0 for equal ones (Ding,
          Denain and Steinhardt 2021, "Grounding representation similarity with statistical testing", section 2).

    Raises:
        InputError: If the numbers of rows differ or all rows of one are equal.
    """
    if len(after) != len(before):
        raise InputError(f"features of {len(after)} images cannot be compared with those of {len(before)}")
    x, y = (_centered(rows) for rows in (after, before))
    cross = x.T @ y
    similarity = float((cross**2).sum()) / float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    nuclear = float(np.linalg.svd(cross, compute_uv=False).sum())
    return {"cka": min(1.0, similarity), "procrustes": max(0.0, 2.0 - 2.0 * nuclear)}


def _side(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in SIDES}


def _centered(rows: np.ndarray) -> np.ndarray:
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    norm = float(np.linalg.norm(centered))
    if not norm > 0.0:
        raise InputError(
            f"all {len(rows)} feature rows are equal, so they cannot be compared; has the network collapsed?"
        )
    return centered / norm
