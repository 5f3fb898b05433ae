"""The identity loss against its definition in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reid.losses.identity import identity_loss

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_value(smoothing: float) -> None:
    logits = LOGITS.double().numpy()
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(5)[LABELS.numpy()] + smoothing / 5
    expected = -(target * log_probabilities).sum(1).mean()
    assert identity_loss(LOGITS, LABELS, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-5)


def test_equal_logits_cost_the_logarithm_of_the_classes() -> None:
    assert identity_loss(torch.zeros(3, 751), torch.tensor([0, 1, 750])).item() == pytest.approx(math.log(751))


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = LOGITS.bfloat16()
    loss = identity_loss(logits, LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(identity_loss(logits.float(), LABELS).item(), rel=1e-6)


def test_gradient_is_probability_minus_target() -> None:
    logits = LOGITS.clone().requires_grad_()
    identity_loss(logits, LABELS).backward()
    expected = (LOGITS.softmax(1) - torch.eye(5)[LABELS]) / 6
    assert logits.grad is not None and torch.allclose(logits.grad, expected, atol=1e-6)
