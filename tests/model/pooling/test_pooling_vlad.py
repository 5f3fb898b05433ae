"""Hard VLAD, NetVLAD and GhostVLAD against loops in float64, their limits, and their start from k-means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.model.pooling import POOLINGS
from reid.model.pooling.kmeans import cluster, soft_assignment_v1, soft_assignment_v2
from reid.model.pooling.vlad import VLAD, HardVLAD, NetVLAD

CHANNELS, CLUSTERS = 4, 3


def maps() -> Tensor:
    return torch.randn(2, CHANNELS, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def net(**options: int | str) -> NetVLAD:
    torch.manual_seed(1)
    pooling = NetVLAD(CHANNELS, clusters=CLUSTERS, **options).double()  # type: ignore[arg-type]
    nn.init.normal_(pooling.assignment.weight, std=2.0)
    return pooling


def unit(x: np.ndarray) -> np.ndarray:
    length = math.sqrt(float((x**2).sum()))
    return x / length if length else x


def blobs(count: int = 40) -> np.ndarray:
    """Descriptors of unit length around five directions, one of them rare: (4 count + count // 4, CHANNELS)."""
    rng = np.random.default_rng(0)
    centres = np.concatenate([np.eye(CHANNELS), -np.ones((1, CHANNELS)) / 2])
    sizes = (count, count, count, count, count // 4)
    samples = np.concatenate(
        [c + 0.1 * rng.standard_normal((n, CHANNELS)) for c, n in zip(centres, sizes, strict=True)]
    )
    return (samples / np.linalg.norm(samples, axis=1, keepdims=True)).astype(np.float32)


def vlad_by_hand(x: np.ndarray, assigned: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """x: (C, N). assigned: (K, N). centers: (K, C)."""
    blocks = []
    for k in range(len(centres)):
        block = np.zeros(len(x))
        for i in range(x.shape[1]):
            for j in range(len(x)):
                block[j] += assigned[k, i] * (unit(x[:, i])[j] - centres[k, j])
        blocks.append(unit(block))
    return unit(np.concatenate(blocks))


def softmax_by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    assigned = np.zeros((len(weight), x.shape[1]))
    for i in range(x.shape[1]):
        powers = [math.exp(float(weight[k] @ unit(x[:, i])) + bias[k]) for k in range(len(weight))]
        assigned[:, i] = np.array(powers) / sum(powers)
    return assigned


@pytest.mark.parametrize("ghosts", [0, 2])
@pytest.mark.parametrize("init", ["kmeans_v1", "kmeans_v2"])
def test_soft_vlad_by_loops(ghosts: int, init: str) -> None:
    pooling = net(ghosts=ghosts, init=init)
    weight, centres = pooling.assignment.weight.detach().numpy(), pooling.centres.detach().numpy()
    bias = np.zeros(CLUSTERS + ghosts) if init == "kmeans_v1" else pooling.assignment.bias.detach().numpy()
    assert (pooling.assignment.bias is None) == (init == "kmeans_v1")
    assert weight.shape == (CLUSTERS + ghosts, CHANNELS) and centres.shape == (CLUSTERS, CHANNELS)
    attention = pooling.attention(maps()).detach().numpy()
    for x, pooled, shown in zip(maps().flatten(2).numpy(), pooling(maps()).detach().numpy(), attention, strict=True):
        assigned = softmax_by_hand(x, weight, bias)
        np.testing.assert_allclose(shown.reshape(len(weight), -1), assigned, rtol=1e-10)
        np.testing.assert_allclose(pooled, vlad_by_hand(x, assigned[:CLUSTERS], centres), rtol=1e-10, atol=1e-14)


def test_hard_vlad_by_loops() -> None:
    torch.manual_seed(1)
    pooling = HardVLAD(CHANNELS, clusters=CLUSTERS).double()
    centres = pooling.centres.detach().numpy()
    for x, pooled in zip(maps().flatten(2).numpy(), pooling(maps()).detach().numpy(), strict=True):
        assigned = np.zeros((CLUSTERS, x.shape[1]))
        for i in range(x.shape[1]):
            assigned[np.argmin([((unit(x[:, i]) - c) ** 2).sum() for c in centres]), i] = 1
        np.testing.assert_allclose(pooled, vlad_by_hand(x, assigned, centres), rtol=1e-12, atol=1e-14)


def test_the_length_of_a_descriptor_does_not_count() -> None:
    scale = torch.rand(2, 1, 3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5
    pooling = net()
    torch.testing.assert_close(pooling(maps() * scale), pooling(maps()), rtol=1e-10, atol=1e-12)


def test_a_sharp_softmax_is_hard_vlad() -> None:
    torch.manual_seed(1)
    hard, soft = HardVLAD(CHANNELS, clusters=CLUSTERS).double(), net()
    centres = hard.centres.detach()
    errors = []
    for alpha in (1.0, 10.0, 1e4):
        with torch.no_grad():
            soft.centres.copy_(centres)
            soft.assignment.weight.copy_(2 * alpha * centres)
            soft.assignment.bias.copy_(-alpha * centres.square().sum(1))
        torch.testing.assert_close(soft.attention(maps()).argmax(1), hard.attention(maps()).argmax(1))
        errors.append((soft(maps()) - hard(maps())).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-12


def test_without_ghosts_ghost_vlad_is_netvlad() -> None:
    ghost = POOLINGS["ghost_vlad"](CHANNELS, clusters=CLUSTERS, ghosts=0).double()
    pooling = net()
    ghost.load_state_dict(pooling.state_dict())
    assert torch.equal(ghost(maps()), pooling(maps()))


def test_a_ghost_takes_descriptors_away() -> None:
    pooling = net(ghosts=1)
    with torch.no_grad():
        pooling.assignment.bias[-1] = 50.0
    assert pooling.attention(maps())[:, :CLUSTERS].sum(1).max() < 1e-6


def two_nearest(values: list[float]) -> tuple[float, float]:
    first, second = sorted(values)[:2]
    return first, second


def test_version_2_by_hand() -> None:
    centres, descriptors = np.random.default_rng(1).standard_normal((CLUSTERS, CHANNELS)), blobs(5)
    gaps = []
    for x in descriptors.astype(np.float64):
        first, second = two_nearest([float(((x - c) ** 2).sum()) for c in centres])
        gaps.append(second - first)
    alpha = -math.log(0.01) / (sum(gaps) / len(gaps))
    weight, bias, found = soft_assignment_v2(centres, descriptors)
    assert found == pytest.approx(alpha, rel=1e-12)
    np.testing.assert_allclose(weight, 2 * alpha * centres, rtol=1e-12)
    np.testing.assert_allclose(bias, [-alpha * float(c @ c) for c in centres], rtol=1e-12)
    # w x + b is then -alpha times the squared distance, but for what all clusters share
    distances = ((descriptors[:, None].astype(np.float64) - centres) ** 2).sum(2)
    scores = descriptors @ weight.T + bias
    np.testing.assert_allclose(scores - scores[:, :1], -alpha * (distances - distances[:, :1]), atol=1e-6)


def test_version_1_by_hand() -> None:
    centres, descriptors = np.random.default_rng(1).standard_normal((CLUSTERS, CHANNELS)), blobs(5)
    gaps = []
    for x in descriptors.astype(np.float64):
        first, second = two_nearest([-float(unit(c) @ x) for c in centres])
        gaps.append(second - first)
    alpha = -math.log(0.01) / (sum(gaps) / len(gaps))
    weight, found = soft_assignment_v1(centres, descriptors)
    assert found == pytest.approx(alpha, rel=1e-12)
    np.testing.assert_allclose(weight, [alpha * unit(c) for c in centres], rtol=1e-12)


def test_at_the_mean_gap_the_second_cluster_gets_a_hundredth() -> None:
    """Two descriptors of equal gap: the softmax of the second best over that of the best is 0.01."""
    centres = np.array([[1.0, 0.0], [0.0, 1.0]])
    angle = math.radians(20)
    descriptors = np.array([[math.cos(angle), math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    weight, bias, _ = soft_assignment_v2(centres, descriptors)
    scores = np.sort(descriptors @ weight.T + bias, axis=1)
    np.testing.assert_allclose(np.exp(scores[:, 0] - scores[:, 1]), 0.01, rtol=1e-12)


@pytest.mark.parametrize("name", ["hard_vlad", "netvlad"])
@pytest.mark.parametrize("init", ["kmeans_v1", "kmeans_v2"])
def test_centers_are_found_and_the_soft_weights_fit_them(name: str, init: str) -> None:
    descriptors = blobs()
    pooling = POOLINGS[name](CHANNELS, clusters=5, init=init)
    assert isinstance(pooling, VLAD) and pooling.min_descriptors == 5
    pooling.initialize(3 * descriptors, seed=7)  # their length does not count
    centres = pooling.centres.detach().numpy().astype(np.float64)
    means = np.array([unit(c) for c in centres])
    truth = np.concatenate([np.eye(CHANNELS), -np.ones((1, CHANNELS)) / 2])
    assert sorted((truth @ means.T).argmax(1)) == list(range(5)) and (truth @ means.T).max(1).min() > 0.99
    if isinstance(pooling, NetVLAD):
        expected = soft_assignment_v1 if init == "kmeans_v1" else soft_assignment_v2
        np.testing.assert_allclose(pooling.assignment.weight.detach(), expected(centres, descriptors)[0], rtol=1e-4)
        assert (pooling.assignment.bias is None) == (init == "kmeans_v1")
    images = torch.from_numpy(descriptors).T.reshape(1, CHANNELS, 10, 17)
    nearest = ((descriptors[:, None] - centres) ** 2).sum(2).argmin(1).reshape(10, 17)
    # version 1 goes by the angle alone
    agreement = (pooling.attention(images)[0].argmax(0).numpy() == nearest).mean()
    assert agreement == 1.0 if init == "kmeans_v2" else agreement > 0.95


def test_the_rarest_clusters_become_ghosts() -> None:
    pooling = POOLINGS["ghost_vlad"](CHANNELS, clusters=4, ghosts=1)
    assert pooling.min_descriptors == 5
    pooling.initialize(blobs(), seed=3)
    assert isinstance(pooling, NetVLAD)
    rare = torch.full((1, CHANNELS, 1, 1), -0.5)
    assert pooling.attention(rare)[0, :, 0, 0].argmax() == 4
    assert pooling.attention(torch.eye(CHANNELS)[None, :, :, None])[0, 4].max() < 0.01
    assert pooling.centres.shape == (4, CHANNELS)


def test_the_start_follows_from_the_seed() -> None:
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 100)
        pooling = NetVLAD(CHANNELS, clusters=7)
        pooling.initialize(blobs(), seed=seed)
        starts.append(pooling.state_dict())
    assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    assert not torch.equal(starts[0]["centres"], starts[2]["centres"])


def test_a_random_start_needs_no_descriptors() -> None:
    pooling = NetVLAD(CHANNELS, clusters=6, init="random")
    assert pooling.min_descriptors == 0
    torch.testing.assert_close(pooling.centres.norm(dim=1), torch.ones(6))


def test_more_clusters_than_descriptors() -> None:
    with pytest.raises(InputError, match="6 clusters are more than the 5 distinct local descriptors"):
        cluster(blobs()[:5], 6, seed=0)
    with pytest.raises(InputError, match="3 clusters are more than the 2 distinct local descriptors"):
        cluster(np.repeat(blobs()[:2], 30, axis=0), 3, seed=0)


def test_clusters_that_cannot_be_told_apart() -> None:
    centres = np.ones((2, CHANNELS))
    for assignment in (soft_assignment_v1, soft_assignment_v2):
        with pytest.raises(InputError, match="equally near"):
            assignment(centres, blobs())
