"""Losses over pairs and triplets of one batch: contrastive, batch-hard triplet, circle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reid.errors import InputError, check_count
from reid.losses.checks import check_batch

_EPS = 1e-12  # minimum of squared distances, since the gradient of sqrt is infinite at 0


def contrastive_loss(features: Tensor, labels: Tensor, *, tau: float = 0.7, tuple_size: int = 0) -> Tensor:
    """Compute the contrastive loss (Radenović et al. 2018, Eq. 4).

    The mean over pairs of ½d² if the labels match and ½ max(0, τ - d)² if not; d is the Euclidean distance of the
    features at unit length, in [0, 2].

    Args:
        features: (B, D) floating.
        labels: (B,) int64.
        tau: Margin τ, a distance of unit vectors in [0, 2].
        tuple_size: Number of consecutive rows per tuple; the pairs are the first row of each tuple with its others. 0
            uses all pairs of the batch.

    Returns:
        Loss, a float32 scalar, 0 for a batch of one image.

    Raises:
        InputError: If `tuple_size` does not divide the batch, or features and labels are not those of one batch.
    """
    check_batch(features, labels)
    unit = functional.normalize(features.float(), dim=1)
    first, second = _pairs(len(unit), tuple_size, unit.device)
    if not len(first):
        return unit.sum() * 0
    squares = (unit[first] - unit[second]).square().sum(1)
    distances = squares.clamp(min=_EPS).sqrt()
    losses = torch.where(labels[first] == labels[second], squares, (tau - distances).clamp(min=0).square())
    return losses.mean() / 2


def triplet_loss(features: Tensor, labels: Tensor, *, margin: float = 0.3) -> Tensor:
    """Compute the batch-hard triplet loss (Hermans, Beyer, Leibe 2017, Eq. 5).

    The mean over anchors of max(0, margin + furthest match - nearest non-match), with Euclidean distances of the
    features as they are. Anchors without a match or a non-match in the batch are skipped.

    Args:
        features: (B, D) floating.
        labels: (B,) int64.
        margin: Required difference between the two distances.

    Returns:
        A float32 scalar, 0 if all anchors are skipped.

    Raises:
        InputError: If features and labels are not those of one batch.
    """
    check_batch(features, labels)
    features = features.float()
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distances = (features[:, None, :] - features[None, :, :]).square().sum(2).clamp(min=_EPS).sqrt()
    furthest = distances.masked_fill(~same | itself, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    valid = furthest.isfinite() & nearest.isfinite()
    if not valid.any():
        return features.sum() * 0
    return (margin + furthest - nearest)[valid].clamp(min=0).mean()


def circle_loss(features: Tensor, labels: Tensor, *, margin: float = 0.25, scale: float = 128.0) -> Tensor:
    """Compute the circle loss on cosines (Sun et al. 2020, Eq. 6).

    Each anchor's loss is ln(1 + Σ exp(γ αₙ (sₙ - m)) Σ exp(-γ αₚ (sₚ - 1 + m))) over its non-matches n and its matches
    p in the batch, with the weights αₙ = max(0, sₙ + m) and αₚ = max(0, 1 + m - sₚ) held constant in the gradient. The
    mean is taken over the anchors whose loss is not 0, which leaves out those without a match or a non-match.

    Args:
        features: (B, D) floating.
        labels: (B,) int64.
        margin: m of the paper, by default its value for person re-identification.
        scale: γ of the paper, by default its value for person re-identification.

    Returns:
        Loss, a float32 scalar, 0 if all anchors are left out.

    Raises:
        InputError: If features and labels are not those of one batch.
    """
    check_batch(features, labels)
    features = features.float()
    cosines = functional.normalize(features, dim=1) @ functional.normalize(features, dim=1).T
    fixed = cosines.detach()
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    matches = -scale * (1 + margin - fixed).relu() * (cosines - (1 - margin))
    others = scale * (fixed + margin).relu() * (cosines - margin)
    exponents = matches.masked_fill(~same | itself, -torch.inf).logsumexp(1)
    exponents = exponents + others.masked_fill(same, -torch.inf).logsumexp(1)
    losses = functional.softplus(exponents)
    counted = losses > 0
    return losses[counted].mean() if counted.any() else features.sum() * 0


def _pairs(count: int, tuple_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    check_count("tuple_size", tuple_size, minimum=0)
    if not tuple_size:
        first, second = torch.triu_indices(count, count, 1, device=device)
        return first, second
    if count % tuple_size:
        raise InputError(f"a batch of {count} images cannot be split into tuples of {tuple_size}")
    second = torch.arange(count, device=device).view(-1, tuple_size)[:, 1:]
    first = (second - second % tuple_size).flatten()
    return first, second.flatten()
