"""What the pooling starts from, and what is refused before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS
from reid.training.pooling_init import check_pooling, initialize_pooling

PLACES = 4 * 3  # the small trunk halves 8 x 6


@pytest.fixture
def make(make_model: Callable[[], ReidNetwork]) -> Callable[..., ReidNetwork]:
    def with_pooling(name: str, **options: Any) -> ReidNetwork:
        model = make_model()
        model.pooling = POOLINGS[name](12, **options)
        return model

    return with_pooling


class FewImages:
    """Three images by three calls, as a loader whose batches are smaller than what is asked for."""

    def __init__(self, loader: Any) -> None:
        self.images, self.labels = loader.images[:3], loader.labels[:3]

    def __len__(self) -> int:
        return 1

    def epoch(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("the start is not an epoch")

    def sample(self, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(list(zip(self.images.split(1), self.labels.split(1), strict=True))[:count])


def received(model: ReidNetwork, loader: Any, **options: Any) -> np.ndarray:
    """The descriptors that the pooling is handed."""
    seen: list[np.ndarray] = []
    model.pooling.initialize = lambda descriptors, *, seed: seen.append(descriptors)  # type: ignore[method-assign]
    initialize_pooling(model, loader, seed=5, **options)
    return seen[0]


def test_descriptors_are_places_of_the_training_images_as_training_will_see_them(make: Any, loader: Any) -> None:
    model = make("netvlad", clusters=4)
    descriptors = received(model, loader)
    assert descriptors.shape == (50 * PLACES, 12) and descriptors.dtype == np.float32
    with torch.no_grad():
        maps = model.backbone.train()(loader.images).flatten(2)  # batch statistics
    expected = maps.transpose(1, 2).reshape(-1, 12).numpy()
    np.testing.assert_allclose(np.sort(descriptors, axis=0), np.sort(expected, axis=0), atol=1e-5)


def test_frozen_statistics_are_used_where_training_uses_them(make: Any, loader: Any) -> None:
    model = make("netvlad", clusters=4)
    descriptors = received(model, loader, norm_statistics="frozen")
    with torch.no_grad():
        maps = model.backbone.eval()(loader.images).flatten(2)
    expected = maps.transpose(1, 2).reshape(-1, 12).numpy()
    np.testing.assert_allclose(np.sort(descriptors, axis=0), np.sort(expected, axis=0), atol=1e-5)


def test_no_more_descriptors_than_asked_for(make: Any, loader: Any) -> None:
    assert received(make("netvlad", clusters=4), loader, descriptors=70).shape == (70, 12)


def test_the_start_follows_from_the_seed_and_leaves_the_rest_alone(make: Any, loader: Any) -> None:
    states = []
    for seed in (5, 5, 6):
        model = make("ghost_vlad", clusters=4, ghosts=1)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        mode = model.training
        torch.manual_seed(len(states))
        initialize_pooling(model, loader, seed=seed)
        states.append(model.state_dict())
        others = [key for key in before if not key.startswith("pooling.")]
        assert all(torch.equal(before[key], states[-1][key]) for key in others)
        assert all(not torch.equal(before[key], states[-1][key]) for key in before if key not in others)
        assert model.training == mode
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["pooling.centres"], states[2]["pooling.centres"])


@pytest.mark.parametrize(("name", "options"), [("average", {}), ("gem", {}), ("netvlad", {"init": "random"})])
def test_poolings_without_need_are_left_alone(make: Any, name: str, options: dict[str, Any]) -> None:
    model = make(name, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    initialize_pooling(model, None, seed=0)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_more_clusters_than_descriptors_are_found_before_training(make: Any, loader: Any) -> None:
    few = FewImages(loader)
    check_pooling(make("netvlad", clusters=3 * PLACES), few)
    model = make("ghost_vlad", clusters=3 * PLACES, ghosts=1)
    for call in (lambda: check_pooling(model, few), lambda: initialize_pooling(model, few, seed=0)):
        with pytest.raises(InputError, match=r"at least 37 local descriptors, .* positions provide 36"):
            call()


def test_maps_too_small_are_found_before_training(make: Any, loader: Any) -> None:
    with pytest.raises(InputError, match="more than the 4 x 3 positions"):
        check_pooling(make("regional_weighted_gem", regions=13), loader)
    with pytest.raises(InputError, match="more than the 4 x 3 positions"):
        check_pooling(make("rmac", levels=3), loader)
    check_pooling(make("rmac", levels=2), loader)


def test_the_check_leaves_the_network_as_it_was(make: Any, loader: Any) -> None:
    model = make("rmac", levels=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_pooling(model, loader)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) and m.num_batches_tracked for m in model.modules())
