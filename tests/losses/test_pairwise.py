"""Contrastive, batch-hard triplet and circle loss against loops, another library and the gradients of the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.losses import CircleLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from torch import Tensor

from reid.errors import InputError
from reid.losses.pairwise import circle_loss, contrastive_loss, triplet_loss


def sample(count: int = 12, width: int = 5, identities: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return features, torch.arange(count) // 2 % identities


def one_pair(first: Tensor, second: Tensor, match: bool, tau: float) -> float:
    a, b = (v.double() / v.double().norm() for v in (first, second))
    d = math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))
    return 0.5 * d * d if match else 0.5 * max(0.0, tau - d) ** 2


@pytest.mark.parametrize("tau", [0.7, 1.3, 2.0])
@pytest.mark.parametrize("group", [0, 3, 4])
def test_contrastive_is_the_mean_over_its_pairs(tau: float, group: int) -> None:
    features, labels = sample(identities=6)
    if group:
        chosen = [(i - i % group, i) for i in range(12) if i % group]
    else:
        chosen = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    losses = [one_pair(features[i], features[j], bool(labels[i] == labels[j]), tau) for i, j in chosen]
    expected = sum(losses) / len(losses)
    assert expected > 0.01
    assert contrastive_loss(features, labels, tau=tau, tuple_size=group).item() == pytest.approx(expected, rel=1e-5)


def test_the_hinge_of_the_contrastive_loss_is_squared() -> None:
    # At distance d inside tau the slope of ½(tau - d)² is -(tau - d): a linear hinge would have a constant one.
    for angle in (0.2, 0.5, 0.6):
        features = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], requires_grad=True)
        loss = contrastive_loss(features, torch.tensor([0, 1]), tau=1.0)
        loss.backward()
        d = 2 * math.sin(angle / 2)
        assert loss.item() == pytest.approx(0.5 * (1 - d) ** 2, rel=1e-4)
        # d = 2 sin(angle / 2), so ∂loss/∂angle = -(tau - d) cos(angle / 2); the second feature moves along its tangent.
        tangent = torch.tensor([-math.sin(angle), math.cos(angle)])
        assert (features.grad[1] @ tangent).item() == pytest.approx(-(1 - d) * math.cos(angle / 2), rel=1e-4)


def test_equal_features_have_a_finite_gradient() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    (contrastive_loss(features, labels) + triplet_loss(features, labels)).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_a_batch_that_is_no_tuples_is_refused() -> None:
    with pytest.raises(InputError, match="12 images cannot be split into tuples of 5"):
        contrastive_loss(*sample(), tuple_size=5)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_triplet_takes_the_hardest_of_each_anchor(margin: float) -> None:
    features, labels = sample(identities=3)
    losses = []
    for i in range(12):
        d = (features[i] - features).norm(dim=1).tolist()
        furthest = max(d[j] for j in range(12) if labels[j] == labels[i] and j != i)
        nearest = min(d[j] for j in range(12) if labels[j] != labels[i])
        losses.append(max(0.0, margin + furthest - nearest))
    found = triplet_loss(features, labels, margin=margin).item()
    assert found == pytest.approx(sum(losses) / 12, rel=1e-5)


def test_triplet_agrees_with_a_library() -> None:
    features, labels = sample(16, 8, 4, seed=3)
    features = features.float()
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import MeanReducer

    distance = LpDistance(normalize_embeddings=False)
    mined = BatchHardMiner(distance=distance)(features, labels)
    expected = TripletMarginLoss(margin=0.5, distance=distance, reducer=MeanReducer())(features, labels, mined)
    assert triplet_loss(features, labels, margin=0.5).item() == pytest.approx(expected.item(), rel=1e-5)


def test_anchors_without_a_partner_are_left_out() -> None:
    features = torch.tensor([[0.0], [1.0], [5.0]])
    # Only the first two have a match: 0.3 + 1 - 5 and 0.3 + 1 - 4 are below 0, with a margin of 10 they are not.
    assert triplet_loss(features, torch.tensor([1, 1, 2]), margin=10.0).item() == pytest.approx((6 + 7) / 2)
    alone = torch.ones(3, 2, requires_grad=True)
    loss = triplet_loss(alone, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0 and alone.grad is not None


def test_circle_is_the_papers_formula() -> None:
    features, labels = sample(8, 4, 4, seed=5)
    unit = features / features.norm(dim=1, keepdim=True)
    cosines, m, gamma = unit @ unit.T, 0.25, 16.0
    losses = []
    for i in range(8):
        positive = [cosines[i, j].item() for j in range(8) if labels[j] == labels[i] and j != i]
        negative = [cosines[i, j].item() for j in range(8) if labels[j] != labels[i]]
        p = sum(math.exp(-gamma * max(0.0, 1 + m - s) * (s - (1 - m))) for s in positive)
        n = sum(math.exp(gamma * max(0.0, s + m) * (s - m)) for s in negative)
        losses.append(math.log1p(n * p))
    found = circle_loss(features, labels, margin=m, scale=gamma).item()
    assert found == pytest.approx(sum(losses) / 8, rel=1e-4)


@pytest.mark.parametrize("scale", [16.0, 128.0, 2000.0])
@pytest.mark.parametrize("identities", [1, 4, 6, 16])
def test_circle_and_its_gradient_are_a_librarys(identities: int, scale: float) -> None:
    # One identity: no non-match; 16: no match. With the largest scale, the losses of some anchors round to 0.
    features, labels = sample(16, 8, 4, seed=7)
    labels = torch.arange(16) % identities
    ours, theirs = (features.float().requires_grad_() for _ in range(2))
    found, expected = circle_loss(ours, labels, scale=scale), CircleLoss(m=0.25, gamma=scale)(theirs, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6 * scale)
