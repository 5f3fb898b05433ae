"""The center loss: its value, the movement of the centers, and its state."""

from __future__ import annotations

import pytest
import torch

from reid.losses.center import CenterLoss


def test_loss_and_movement_are_those_of_the_paper() -> None:
    loss = CenterLoss(3, 2, alpha=0.5)
    loss.centers.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]]))
    features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0]], requires_grad=True)
    value = loss(features, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx((0.5 * 1 + 0.5 * 9 + 0.5 * 4) / 3)
    value.backward()
    # The gradient is that of the centers as they were before they moved.
    assert torch.allclose(features.grad, torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]) / 3)
    # Identity 0: (1 + 3) / (1 + 2) · 0.5; identity 1: 2 / (1 + 1) · 0.5; identity 2 was not there.
    assert torch.allclose(loss.centers, torch.tensor([[1 + 2 / 3, 0.0], [0.0, 1.5], [4.0, 4.0]]))


def test_centers_stand_still_outside_training() -> None:
    loss = CenterLoss(2, 2)
    features, labels = torch.ones(2, 2), torch.tensor([0, 1])
    loss.eval()(features, labels)
    with torch.no_grad():
        loss.train()(features, labels)
    assert not loss.centers.any()
    assert set(loss.state_dict()) == {"centers"} and not list(loss.parameters())
