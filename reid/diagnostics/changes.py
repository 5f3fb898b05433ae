"""What differs between two checkpoints of one network: weights layer by layer, and features of the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.diagnostics.survey import survey_layer
from reid.diagnostics.weights import Layer
from reid.errors import InputError
from reid.progress import track

# What of a survey's row is shown of both sides.
SIDES = ("correlation", "ratio", "effective_rank", "condition_number", "severest_pair", "largest_cosine")
# The leading directions compared hold this share of the sum of squared singular values of the reference.
ENERGY = 0.9


def compare_layers(layers: Sequence[Layer], references: Sequence[Layer]) -> dict[str, Any]:
    """Compare the layers of two networks that have the same name and shape.

    Args:
        layers: Layers of the network after a change.
        references: Layers of the network before it.

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
    rows = []
    for layer in track(common, "comparison", unit="weights"):
        sides = (layer, others[layer.name])
        # Groups are guessed from a file's order of tensors, which need not be that of the other file.
        known = min(sides, key=lambda side: side.groups_from == "shapes")
        layer, other = (replace(side, groups=known.groups, groups_from=known.groups_from) for side in sides)
        after, before = (survey_layer(side, spectra=False) for side in (layer, other))
        row = {key: after[key] for key in ("name", "kind", "d_in", "k", "groups", "groups_from")}
        row |= {"before": _side(before), "after": _side(after)}
        row["broken"] = before["broken"] or after["broken"]
        if row["broken"] is None:
            row |= compare_matrices(layer.matrices(), other.matrices())
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
          of its energy, at most the rank of A; the mean over groups.
        - overlap: mean cos^2 of the principal angles between these and as many of A (Bjoerck and Golub 1973, "Numerical
          methods for computing angles between linear subspaces"); 1 for the same subspace. overlap_by_chance: r / D.
        - largest_angle: largest principal angle in degrees.

        A group in which r is 0, or in which the singular values r and r + 1 of A or B are equal up to rounding, has
        no definite leading directions and is left out of the last four, which are None if no group has any.

    Raises:
        InputError: If one is zero or not finite.
    """
    if not all(bool(torch.isfinite(side).all()) and bool(side.any()) for side in (after, before)):
        raise InputError("weights cannot be compared if one of them is all zero, NaN or infinite")
    # The scale is a power of two, so that dividing is exact; squares of entries up to 1 are in range.
    a, b = (side / _scale(side) for side in (after, before))
    length, other_length = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    left, values, _ = torch.linalg.svd(a, full_matrices=False)
    other_left, other_values, _ = torch.linalg.svd(b, full_matrices=False)
    # The singular values of B^T A are those of this smaller matrix.
    inner = (other_values[:, :, None] * (other_left.transpose(1, 2) @ left)) * values[:, None, :]
    nuclear = float(torch.linalg.svdvals(inner).sum()) / (length * other_length)
    ratio = (length / other_length) * (_scale(after) / _scale(before))
    smaller = min(ratio, 1 / ratio)
    rotated = 1.0 + smaller**2 - 2.0 * smaller * nuclear
    # Cancellation leaves the square with the rounding of its terms.
    rotated = 0.0 if rotated < 1e-13 * (1.0 + smaller**2) else rotated
    difference = after - before
    moved = float(torch.linalg.vector_norm(difference / _scale(difference))) * (_scale(difference) / _scale(before))
    return {
        "distance": moved / other_length,
        "cosine": float((a * b).sum()) / (length * other_length),
        "procrustes": max(ratio, 1.0) * math.sqrt(rotated),
        **_principal_angles(left, values, other_left, other_values),
    }


def _principal_angles(left: Tensor, values: Tensor, other_left: Tensor, other_values: Tensor) -> dict[str, Any]:
    """Compare the leading left singular vectors; see `compare_matrices`."""
    d_in = left.shape[1]
    rounding = max(left.shape[1:]) * torch.finfo(values.dtype).eps
    ranks, other_ranks = ((side > rounding * side.max()).sum(dim=1) for side in (values, other_values))
    energy = other_values.square().cumsum(dim=1)
    counts = (energy < ENERGY * energy[:, -1:] * (1 - 1e-12)).sum(dim=1) + 1
    used, overlaps, largest = [], [], 0.0
    for group, r in enumerate(torch.minimum(counts, torch.minimum(ranks, other_ranks)).tolist()):
        if r == 0 or not all(_definite(side[group], r, rounding) for side in (values, other_values)):
            continue
        own, other = left[group, :, :r], other_left[group, :, :r]
        used.append(r)
        overlaps.append(float(torch.linalg.svdvals(other.T @ own).square().mean()))
        # The sine is exact for small angles, the cosine is not.
        apart = own - other @ (other.T @ own)
        largest = max(largest, math.degrees(math.asin(min(1.0, float(torch.linalg.matrix_norm(apart, ord=2))))))
    if not used:
        return dict.fromkeys(("directions", "overlap", "overlap_by_chance", "largest_angle"))
    directions = sum(used) / len(used)
    return {
        "directions": directions,
        "overlap": min(1.0, sum(overlaps) / len(overlaps)),
        "overlap_by_chance": directions / d_in,
        "largest_angle": largest,
    }


def _definite(values: Tensor, r: int, rounding: float) -> bool:
    """Whether the first r singular vectors are determined: the next singular value differs."""
    return r == len(values) or float(values[r - 1] - values[r]) > rounding * float(values[0])


def _scale(values: Tensor) -> float:
    """The power of two above the largest entry, 1 for zeros."""
    return math.ldexp(1.0, int(torch.frexp(values.abs().max()).exponent))


def compare_features(after: np.ndarray, before: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Compare two embeddings of the same images, up to a rotation and a scale of either.

    Args:
        after: (N, D) floating.
        before: (N, E) floating, rows of the same images.
        seed: Seed of the shuffle.

    Returns:
        - cka: linear centered kernel alignment in [0, 1], 1 for equal ones (Kornblith et al. 2019, "Similarity of
          neural network representations revisited", equation 5 with a linear kernel).
        - procrustes: 2 - 2 |X^T Y|_* in [0, 2] of the centered embeddings at Frobenius norm 1, 0 for equal ones (Ding,
          Denain and Steinhardt 2021, "Grounding representation similarity with statistical testing", section 2).
        - cka_by_chance, procrustes_by_chance: the same after a shuffle of the rows of `before`. Both say "similar" of
          unrelated embeddings with few images or many dimensions.

    Raises:
        InputError: If the numbers of rows differ, all rows of one are equal, or some are not finite.
    """
    if len(after) != len(before):
        raise InputError(f"features of {len(after)} images cannot be compared with those of {len(before)}")
    x, y = (_centered(rows) for rows in (after, before))
    scale = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    found: dict[str, float] = {}
    for suffix, rows in (("", y), ("_by_chance", np.random.default_rng(seed).permutation(y))):
        cross = x.T @ rows
        found[f"cka{suffix}"] = min(1.0, float((cross**2).sum()) / scale)
        found[f"procrustes{suffix}"] = max(0.0, 2.0 - 2.0 * float(np.linalg.svd(cross, compute_uv=False).sum()))
    return found


def _side(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in SIDES}


def _centered(rows: np.ndarray) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise InputError(f"some of the {len(rows)} feature rows hold NaN or infinity; has the training diverged?")
    scaled = rows.astype(np.float64) / (np.abs(rows).max() or 1.0)
    centered = scaled - scaled.mean(axis=0)
    # The mean of equal numbers may be rounded.
    centered[:, rows.min(axis=0) == rows.max(axis=0)] = 0.0
    largest = float(np.abs(centered).max())
    if largest == 0.0:
        raise InputError(
            f"all {len(rows)} feature rows are equal, so they cannot be compared; has the network collapsed?"
        )
    return centered / largest / np.linalg.norm(centered / largest)
