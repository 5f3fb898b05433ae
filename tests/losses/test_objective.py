"""The training objective: its terms, the steps of a penalty, and its state."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from reid.losses.identity import identity_loss
from reid.losses.objective import LossWeights, Objective
from reid.losses.orthogonality import so
from reid.losses.pairwise import circle_loss, contrastive_loss, triplet_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(8, 4, generator=GENERATOR), torch.arange(8) // 2
INPUT, OUTPUT = torch.randn(8, 6, generator=GENERATOR), torch.randn(8, 3, generator=GENERATOR)
VECTORS = torch.randn(6, 3, generator=GENERATOR)


def terms(weights: LossWeights, **options: Any) -> dict[str, float]:
    width = 6 if weights.feature == "input" else 3
    found = Objective(weights, num_classes=4, width=width)(
        LOGITS, LABELS, input=INPUT, output=OUTPUT, vectors=VECTORS, **options
    )
    return {name: term.item() for name, term in found.items()}


def test_by_default_it_is_the_identity_loss_alone() -> None:
    assert terms(LossWeights()) == {"identity": identity_loss(LOGITS, LABELS).item()}
    smoothed = identity_loss(LOGITS, LABELS, label_smoothing=0.2).item()
    assert terms(LossWeights(label_smoothing=0.2)) == {"identity": smoothed}
    assert not Objective().state_dict()


@pytest.mark.parametrize("feature", ["input", "output"])
def test_every_term_is_its_loss_times_its_weight(feature: str) -> None:
    compared = INPUT if feature == "input" else OUTPUT
    weights = LossWeights(
        identity=0.5,
        feature=feature,
        triplet=2.0,
        triplet_margin=0.7,
        contrastive=3.0,
        contrastive_tau=1.1,
        circle=0.1,
        circle_margin=0.3,
        circle_scale=20.0,
        center=0.01,
        penalty="so",
        penalty_weight=0.05,
    )
    expected = {
        "identity": 0.5 * identity_loss(LOGITS, LABELS).item(),
        "triplet": 2 * triplet_loss(compared, LABELS, margin=0.7).item(),
        "contrastive": 3 * contrastive_loss(compared, LABELS, tau=1.1).item(),
        "circle": 0.1 * circle_loss(compared, LABELS, margin=0.3, scale=20.0).item(),
        "center": 0.01 * compared.square().sum(1).mean().item() / 2,  # the centers start at 0
        "so": 0.05 * so(VECTORS).item(),
    }
    assert terms(weights) == pytest.approx(expected, rel=1e-6)
    assert list(terms(dataclasses.replace(weights, identity=0.0))) == list(expected)[1:]


def test_tuples_count_where_the_batch_is_made_of_them() -> None:
    weights = LossWeights(identity=0.0, contrastive=1.0, tuple_size=4)
    assert terms(weights)["contrastive"] == contrastive_loss(INPUT, LABELS, tuple_size=4).item()
    assert terms(weights, tuples=False)["contrastive"] == contrastive_loss(INPUT, LABELS).item()


def test_the_penalty_follows_its_steps() -> None:
    weights = LossWeights(penalty="so", penalty_weight=1.0, penalty_steps=((0.25, 0.1), (0.5, 0.01), (0.75, 0.0)))
    whole = so(VECTORS).item()
    # At 0 it is a term, too: a weight that nothing else trains has a gradient from the first step on.
    shares = [terms(weights, progress=part)["so"] for part in (0.0, 0.2, 0.25, 0.6, 0.75, 1.0)]
    assert shares == pytest.approx([whole, whole, 0.1 * whole, 0.01 * whole, 0.0, 0.0])


def test_the_centers_are_its_state() -> None:
    objective = Objective(LossWeights(center=1.0), num_classes=4, width=6)
    objective(LOGITS, LABELS, input=INPUT, output=OUTPUT, vectors=VECTORS)
    again = Objective(LossWeights(center=1.0), num_classes=4, width=6)
    again.load_state_dict(objective.state_dict())
    assert again.center is not None and again.center.centers.any()
