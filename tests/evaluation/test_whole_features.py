"""Descriptors of whole images at several scales, against loops in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from composed_network import compose
from torch import Tensor, nn

from reid.errors import InputError
from reid.evaluation.features import DescriptorOptions, check_any_size, extract_whole
from reid.model.eigenlayer import Eigenlayer
from reid.model.network import ReidNetwork
from reid.model.pooling import POOLINGS

SIZES = ((9, 14), (9, 14), (16, 5), (7, 7))


class Identity(nn.Module):
    """The image is the map."""

    out_channels = 3

    def forward(self, images: Tensor) -> Tensor:
        return images


@dataclass
class Images:
    batches: Sequence[Tensor]

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


@pytest.fixture
def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(3, *size, generator=generator) + 0.01 for size in SIZES]
    return Images([torch.stack(drawn[:2]), drawn[2][None], drawn[3][None]])


def network(pooling: str = "gem", neck: nn.Module | None = None, **options: object) -> ReidNetwork:
    torch.manual_seed(1)
    pool = POOLINGS[pooling](3, **options)
    return ReidNetwork(Identity(), pool, neck or nn.Identity(), Eigenlayer(3, 2), nn.Linear(2, 4), 0.5)


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """(C, H, W) resampled bilinearly about the pixels' centers, sides rounded down, edges repeated."""
    channels, height, width = image.shape
    found = np.zeros((channels, int(height * scale), int(width * scale)))
    for y in range(found.shape[1]):
        for x in range(found.shape[2]):
            at = [max((place + 0.5) / scale - 0.5, 0.0) for place in (y, x)]
            for dy in (0, 1):
                for dx in (0, 1):
                    rows, columns = min(int(at[0]) + dy, height - 1), min(int(at[1]) + dx, width - 1)
                    parts = [a % 1 if d else 1 - a % 1 for a, d in zip(at, (dy, dx), strict=True)]
                    found[:, y, x] += parts[0] * parts[1] * image[:, rows, columns]
    return found


def by_loops(
    images: Images, scales: Sequence[float], combine: str, *, p: float = 3.0, weight: np.ndarray | None = None,
    mirror: bool = False,
) -> np.ndarray:  # fmt: skip
    """GeM of each scale, of unit length; their mean or generalized mean, of unit length."""
    rows = []
    for image in (image.double().numpy() for batch in images for image in batch):
        total = np.zeros(3 if weight is None else len(weight))
        for scale in scales:
            seen = image if scale == 1 else resized(image, scale)
            views = [seen, seen[:, :, ::-1]] if mirror else [seen]
            value = np.zeros_like(total)
            for view in views:
                pooled = np.array([np.mean(channel**p) ** (1 / p) for channel in view])
                value += (pooled if weight is None else weight @ pooled) / len(views)
            value /= np.sqrt((value**2).sum())
            total += (value if combine == "mean" else value**p) / len(scales)
        total = total if combine == "mean" else total ** (1 / p)
        rows.append(total / np.sqrt((total**2).sum()))
    return np.array(rows)


@pytest.mark.parametrize("combine", ["mean", "gem"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.7071, 0.5), (2.0**0.5, 0.5), (0.3,)])
def test_scales_by_loops(images: Images, scales: tuple[float, ...], combine: str) -> None:
    found = extract_whole(network(p=2.5), images, DescriptorOptions(scales=scales, combine=combine))
    assert found.dtype == np.float32 and found.shape == (4, 3)
    np.testing.assert_allclose(found, by_loops(images, scales, combine, p=2.5), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


def test_the_two_ways_to_combine_differ(images: Images) -> None:
    one, other = (by_loops(images, (1, 0.3), combine) for combine in ("mean", "gem"))
    assert np.abs(one - other).max() > 1e-5


def test_the_output_and_the_mirror_image(images: Images) -> None:
    model = network()
    model.eigenlayer.eval()
    weight = model.eigenlayer.weight.detach().double().numpy()
    found = extract_whole(model, images, DescriptorOptions(feature="output", scales=(1, 0.5)))
    np.testing.assert_allclose(found, by_loops(images, (1, 0.5), "mean", weight=weight), atol=2e-6)
    plain = extract_whole(network("weighted_gem"), images, DescriptorOptions(scales=(0.6,), mirror=True))
    np.testing.assert_allclose(plain, by_loops(images, (0.6,), "mean", mirror=True), atol=2e-6)


def test_an_exponent_a_channel_and_a_large_one(images: Images) -> None:
    each = network(p_per_channel=True)
    np.testing.assert_allclose(
        extract_whole(each, images, DescriptorOptions(scales=(1, 0.5), combine="gem")),
        by_loops(images, (1, 0.5), "gem"),
        atol=2e-6,
    )
    # The generalized mean of a large p is the maximum, and no power vanishes on the way.
    large = network(p=2000.0)
    found = extract_whole(large, images, DescriptorOptions(scales=(1, 0.5), combine="gem"))
    assert np.isfinite(found).all()
    parts = np.stack([extract_whole(large, images, DescriptorOptions(scales=(s,))) for s in (1, 0.5)]).max(0)
    np.testing.assert_allclose(found, parts / np.linalg.norm(parts, axis=1, keepdims=True), atol=1e-3)


def test_batches_change_nothing_and_the_mode_is_restored(images: Images) -> None:
    model = network().train()
    singles = Images([image[None] for batch in images for image in batch])
    one, other = (extract_whole(model, some, DescriptorOptions(scales=(1, 0.5))) for some in (images, singles))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert model.training and model.dropout.training


class Shifted(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values - 5


def test_what_cannot_be_combined(images: Images) -> None:
    for scales in ((), (0.0,), (1.0, -0.5), (float("nan"),), (float("inf"),)):
        with pytest.raises(InputError, match="must be one or more numbers above 0"):
            extract_whole(network(), images, DescriptorOptions(scales=scales))
    with pytest.raises(InputError, match=r"scale 0\.1: leaves no pixel of an image of 9 x 14"):
        extract_whole(network(), images, DescriptorOptions(scales=(0.1,)))
    with pytest.raises(InputError, match="unknown way to combine scales 'gemm'; did you mean gem"):
        extract_whole(network(), images, DescriptorOptions(combine="gemm"))
    with pytest.raises(InputError, match="unknown feature 'outputs'; did you mean output"):
        extract_whole(network(), images, DescriptorOptions(feature="outputs"))
    with pytest.raises(InputError, match="this network has Average pooling; use 'mean'"):
        extract_whole(network("average"), images, DescriptorOptions(combine="gem"))
    with pytest.raises(InputError, match="the Eigenlayer's output has negative values"):
        extract_whole(network(), images, DescriptorOptions(feature="output", combine="gem"))
    with pytest.raises(InputError, match="the descriptors have negative values; use 'mean'"):
        extract_whole(network(neck=Shifted()), images, DescriptorOptions(combine="gem"))
    wide = network(neck=nn.ZeroPad1d((0, 2)), p_per_channel=True)
    wide.eigenlayer = Eigenlayer(5, 2)
    with pytest.raises(InputError, match=r"3 exponents, .* descriptors of 5 dimensions"):
        extract_whole(wide, images, DescriptorOptions(combine="gem"))


def test_descriptors_without_direction(images: Images) -> None:
    broken = Images([torch.full((2, 3, 4, 4), float("nan"))])
    with pytest.raises(InputError, match="gallery: 2 of 2 descriptors hold NaN or infinity"):
        extract_whole(network("average"), broken, title="gallery")
    dark = Images([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)])
    with pytest.warns(UserWarning, match="1 of 2 descriptors are zero"):
        found = extract_whole(network("average"), dark)
    assert not found[0].any() and found[1].all()


@pytest.mark.parametrize(
    ("backbone", "pooling"), [("small_local", "average"), ("small_convolution", "flatten"), ("deepface", "gem")]
)
def test_a_network_for_one_size_is_refused(images: Images, backbone: str, pooling: str) -> None:
    model = compose(backbone, 4, pooling=pooling, eigenlayer={"k": 8})
    with pytest.raises(InputError, match=r"only accepts images of one size \(its \d+ x \d+\)") as raised:
        extract_whole(model, images)
    assert "\n" not in str(raised.value)
    check_any_size(compose("osnet_x0_25", 4, pooling="rmac"))
