"""OSNet against an independent computation, its published sizes and its published weights."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from composed_network import randomize
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from reid.errors import InputError
from reid.model.backbones import BACKBONES
from reid.model.backbones.osnet import OSBlock, OSNet
from reid.model.necks import NECKS
from reid.model.pretrained import load_pretrained


def block_by_hand(tensors: dict[str, Tensor], maps: Tensor) -> Tensor:
    """An omni-scale block in evaluation mode, from its tensors by name."""

    def norm(prefix: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            tensors[f"{prefix}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def pointwise(name: str, x: Tensor) -> Tensor:
        return torch.einsum("oi,bihw->bohw", tensors[name][:, :, 0, 0], x)

    def lite(prefix: str, x: Tensor) -> Tensor:
        x = F.conv2d(
            pointwise(f"{prefix}.conv1.weight", x), tensors[f"{prefix}.conv2.weight"], None, 1, 1, 1, len(x[0])
        )
        return norm(f"{prefix}.bn", x).clamp(min=0)

    def gate(x: Tensor) -> Tensor:
        hidden = x.mean((2, 3)) @ tensors["gate.fc1.weight"][:, :, 0, 0].T + tensors["gate.fc1.bias"]
        weight = hidden.clamp(min=0) @ tensors["gate.fc2.weight"][:, :, 0, 0].T + tensors["gate.fc2.bias"]
        return x / (1 + torch.exp(-weight))[:, :, None, None]

    start = norm("conv1.bn", pointwise("conv1.conv.weight", maps)).clamp(min=0)
    total = torch.zeros_like(start)
    for stream, depth in (("conv2a", 1), ("conv2b", 2), ("conv2c", 3), ("conv2d", 4)):
        x = start
        for layer in range(depth):
            x = lite(stream if depth == 1 else f"{stream}.{layer}", x)
        total += gate(x)
    out = norm("conv3.bn", pointwise("conv3.conv.weight", total))
    if "downsample.conv.weight" in tensors:
        maps = norm("downsample.bn", pointwise("downsample.conv.weight", maps))
    return (out + maps).clamp(min=0)


@pytest.mark.parametrize(("d_in", "d_out"), [(64, 128), (128, 128)])
def test_block_is_the_paper_s(d_in: int, d_out: int) -> None:
    block = OSBlock(d_in, d_out).double().eval()
    randomize(block)
    maps = torch.rand(2, d_in, 7, 5, dtype=torch.float64) - 0.5
    with torch.no_grad():
        expected = block_by_hand(dict(block.state_dict()), maps)
        # The block may work in place, but not on its input.
        given = maps.clone()
        assert torch.allclose(block(given), expected, rtol=1e-9)
        assert torch.equal(given, maps)
    assert expected.std() > 1e-3


@pytest.mark.parametrize(
    ("width", "millions", "thousandths"), [(1.0, 2.2, 2170), (0.75, 1.3, 1300), (0.5, 0.6, 640), (0.25, 0.2, 200)]
)
def test_parameter_count_is_the_published_one(width: float, millions: float, thousandths: int) -> None:
    with torch.device("meta"):
        net = OSNet(width)
    count = sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in net.classifier.parameters())
    assert round(count / 1e6, 1) == millions  # table 5 of the paper, as Params (M)
    assert count == pytest.approx(thousandths * 1e3, rel=0.03)


def test_published_weights_load_strictly(real_weights: Path) -> None:
    published = load_pretrained("osnet_x0_25", "osnet_x0_25_imagenet.pth", roots=[real_weights])
    assert published is not None and len(published) == 567
    net = OSNet(0.25)
    net.load_state_dict(published, strict=True)
    assert list(net.state_dict()) == list(published)
    trunk = BACKBONES["osnet_x0_25"](weights=published)
    neck = NECKS["osnet_x0_25"](trunk.out_channels, weights=published)
    taken = {**trunk.state_dict(), **{f"fc.{name}": value for name, value in neck.state_dict().items()}}
    assert set(published) - set(taken) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, published[name]) for name, value in taken.items())


def test_published_statistics_are_met_on_photographs(real_weights: Path, real_data: Path) -> None:
    """A wrong wiring (a ReLU too many, streams or gate misplaced) shows as statistics unlike those recorded."""
    published = load_pretrained("osnet_x0_25", str(real_weights / "osnet_x0_25_imagenet.pth"))
    assert published is not None
    net = OSNet(0.25).eval()
    net.load_state_dict(published)
    correlations = {}

    def watch(name: str, norm: nn.BatchNorm2d) -> None:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            means = torch.stack((given[0].mean((0, 2, 3)), norm.running_mean))
            correlations[name] = torch.corrcoef(means)[0, 1].item()

        norm.register_forward_pre_hook(hook)

    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            watch(name, module)
    with zipfile.ZipFile(real_data / "Market-1501-v15.09.15.zip") as archive:
        names = sorted(n for n in archive.namelist() if "/bounding_box_train/" in n and n.endswith(".jpg"))[::800]
        photos = [Image.open(io.BytesIO(archive.read(name))).resize((128, 256)) for name in names]
    images = torch.from_numpy(np.stack([np.asarray(photo) for photo in photos])).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        net(images)
    values = np.array([value for name, value in correlations.items() if name != "conv1.bn"])
    assert len(values) == 78
    assert np.median(values) > 0.97 and np.mean(values > 0.85) > 0.95


def test_wider_pooling_makes_the_first_linear_new(caplog: pytest.LogCaptureFixture) -> None:
    published = OSNet(0.25, num_classes=5)
    randomize(published)
    with caplog.at_level(logging.WARNING):
        neck = NECKS["osnet_x0_25"](256, weights=published.state_dict())
    assert "256" in caplog.text and "128" in caplog.text and "new" in caplog.text
    assert neck[0].weight.shape == (512, 256)
    assert torch.equal(neck[1].weight, published.fc[1].weight) and torch.equal(neck[1].bias, published.fc[1].bias)
    assert not neck[1].running_mean.any() and torch.equal(neck[1].running_var, torch.ones(512))


def test_weights_of_another_width_are_refused_naming_tensors() -> None:
    with pytest.raises(
        InputError, match=r"my\.pth: not the weights of osnet_x0_5.*conv1\.conv\.weight \(16, 3, 7, 7\)"
    ):
        BACKBONES["osnet_x0_5"](weights=OSNet(0.25, 4).state_dict(), source="my.pth")


def test_bare_network_gives_logits() -> None:
    assert OSNet(0.25, num_classes=7).eval()(torch.zeros(2, 3, 64, 32)).shape == (2, 7)
