"""Losses over pairs and triplets of one batch: contrastive, batch-hard triplet, circle."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional

from reid.errors import InputError

TINY = 1e-12  # below it a squared distance counts as 0, where its root has no slope


def contrastive_loss(features: Tensor, labels: Tensor, *, tau: float = 0.7, group: int = 0) -> Tensor:
    """Mean over pairs of ½d² where the labels match and ½ max(0, τ - d)² where not (Radenović et al. 2018, Eq. 4).

    features: (B, D) floating; d is the Euclidean distance of the features at unit length, in [0, 2]. labels: (B,)
    int64. group: the batch is tuples of so many rows, and the pairs are the first row of each with its others; 0: every
    two rows of the batch are a pair. Returns a float32 scalar.
    """
    unit = functional.normalize(features.float(), dim=1)
    first, second = _pairs(len(unit), group, unit.device)
    squares = (unit[first] - unit[second]).square().sum(1)
    distances = squares.clamp(min=TINY).sqrt()
    losses = torch.where(labels[first] == labels[second], squares, (tau - distances).clamp(min=0).square())
    return losses.mean() / 2


def triplet_loss(features: Tensor, labels: Tensor, *, margin: float = 0.3) -> Tensor:
    """Batch-hard triplet loss: the mean over anchors of max(0, margin + furthest match - nearest non-match).

    Hermans, Beyer, Leibe 2017, Eq. 5, on Euclidean distances of the features as they are. features: (B, D) floating.
    labels: (B,) int64. Anchors without a match or without a non-match in the batch are left out; of none the loss is
    0. Returns a float32 scalar.
    """
    features = features.float()
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distances = (features[:, None, :] - features[None, :, :]).square().sum(2).clamp(min=TINY).sqrt()
    furthest = distances.masked_fill(~same | itself, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    counted = furthest.isfinite() & nearest.isfinite()
    if not counted.any():
        return features.sum() * 0
    return (margin + furthest - nearest)[counted].clamp(min=0).mean()


def circle_loss(features: Tensor, labels: Tensor, *, margin: float = 0.25, scale: float = 128.0) -> Tensor:
    """Circle loss on cosines (Sun et al. 2020, Eq. 6), as pytorch-metric-learning computes it.

    features: (B, D) floating. labels: (B,) int64. margin, scale: m and γ of the paper, whose values for person
    re-identification are the defaults. Returns a float32 scalar. Raises InputError where the library is missing.
    """
    check_metric_learning("the circle loss")
    from pytorch_metric_learning.losses import CircleLoss

    loss: Tensor = CircleLoss(m=margin, gamma=scale)(features.float(), labels)
    return loss


def check_metric_learning(wanted_by: str) -> None:
    """Raise InputError where the library of the extra `losses` is missing; asked before training."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise InputError(f"{wanted_by} needs pytorch-metric-learning: pip install 'reid[losses]'")


def _pairs(count: int, group: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if not group:
        first, second = torch.triu_indices(count, count, 1, device=device)
        return first, second
    if count % group:
        raise InputError(f"a batch of {count} images is not made of tuples of {group}")
    second = torch.arange(count, device=device).view(-1, group)[:, 1:]
    first = (second - second % group).flatten()
    return first, second.flatten()
