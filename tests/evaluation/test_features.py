from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.evaluation.features import extract, mean_features
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS
from reid.records import Features


class Identity(nn.Module):
    """The image is the map, so the pooled vector is the mean color."""

    out_channels = 3

    def forward(self, images: Tensor) -> Tensor:
        return images


@dataclass
class Images:
    images: Tensor
    identities: np.ndarray
    cameras: np.ndarray
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images.split(4))


@pytest.fixture
def images() -> Images:
    values = torch.randn(7, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    return Images(values, np.arange(1, 8), np.ones(7, dtype=np.int64), tuple(f"{n}.jpg" for n in range(7)))


def test_input_and_output_of_the_eigenlayer_in_order(images: Images) -> None:
    model = ReidNetwork(Identity(), POOLINGS["average"](3), nn.Identity(), Eigenlayer(3, 2), nn.Linear(2, 4), 0.9)
    model.train()
    found = extract(model, images)
    colors = images.images.double().mean((2, 3)).numpy()
    weight = model.eigenlayer.weight.detach().double().numpy()
    np.testing.assert_allclose(found["input"].values, colors, atol=1e-6)
    np.testing.assert_allclose(found["output"].values, colors @ weight.T, atol=1e-6)
    assert found["output"].paths == images.paths
    assert model.training


def test_the_mirror_is_the_flipped_image(images: Images) -> None:
    class Left(Identity):
        def forward(self, images: Tensor) -> Tensor:
            return images[..., :1]

    model = ReidNetwork(Left(), POOLINGS["average"](3), nn.Identity(), Eigenlayer(3, 2), nn.Linear(2, 4), 0.0)
    plain, mirror = extract(model, images)["input"], extract(model, images, mirror=True)["input"]
    np.testing.assert_allclose(plain.values, images.images[..., 0].mean(2).numpy(), atol=1e-6)
    np.testing.assert_allclose(mirror.values, images.images[..., 1].mean(2).numpy(), atol=1e-6)
    np.testing.assert_allclose(mean_features(plain, mirror).values, images.images.mean((2, 3)).numpy(), atol=1e-6)


def test_nan_is_reported_with_its_rows() -> None:
    values = np.zeros((4, 2), dtype=np.float32)
    values[2, 1] = np.nan
    with pytest.raises(InputError, match="1 feature rows hold NaN or infinity, the first: 2"):
        Features(values, np.arange(4), np.ones(4, dtype=np.int64))
