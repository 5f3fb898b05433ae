"""Losses called with something else than a batch: one clear line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from reid.errors import InputError
from reid.losses.center import CenterLoss
from reid.losses.identity import identity_loss
from reid.losses.objective import LossWeights, Objective
from reid.losses.pairwise import circle_loss, contrastive_loss, triplet_loss

FEATURES, LABELS = torch.randn(6, 4), torch.arange(6) // 2


@pytest.mark.parametrize("loss", [identity_loss, triplet_loss, contrastive_loss, circle_loss, CenterLoss(3, 4)])
def test_what_is_no_batch_is_refused(loss: Callable[..., Any]) -> None:
    for features in (FEATURES[0], FEATURES.long(), FEATURES.numpy(), "features", None):
        with pytest.raises(InputError, match=r"must be a floating-point \(B, D\) tensor, not"):
            loss(features, LABELS)
    for labels in (LABELS.float(), LABELS[:3], LABELS[None], LABELS.tolist(), LABELS.numpy()):
        with pytest.raises(InputError, match="labels must be an integer tensor of 6 values, not"):
            loss(FEATURES, labels)


def test_sizes_and_names_are_checked_when_a_loss_is_made() -> None:
    for sizes in (("3", 4), (3.0, 4), (-3, 4), (3, 0), (True, 4)):
        with pytest.raises(InputError, match="must be a whole number of at least 1"):
            CenterLoss(*sizes)
    with pytest.raises(InputError, match="features of 4 dimensions and centers of 5"):
        CenterLoss(3, 5)(FEATURES, LABELS)
    for size in (2.5, -2, "2"):
        with pytest.raises(InputError, match="tuple_size must be a whole number"):
            contrastive_loss(FEATURES, LABELS, tuple_size=size)
    for weights, message in (
        ("triplet", "must be a LossWeights, not a str"),
        (LossWeights(feature="inputs"), "did you mean input"),
        (LossWeights(penalty="sos"), "did you mean so"),
    ):
        with pytest.raises(InputError, match=message):
            Objective(weights)


def test_a_single_image_has_no_pairs() -> None:
    assert contrastive_loss(FEATURES[:1], LABELS[:1]) == 0
