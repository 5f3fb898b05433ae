"""Small networks of other codebases, written from their publications: torchvision's ResNets, or plain functions.

Each is a state dict under its family's own names, with random weights, and a function from normalized images
(B, 3, H, W) to what its family compares, (B, D).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

State = dict[str, Tensor]


@dataclass(frozen=True)
class Foreign:
    """A model of another codebase: its tensors and what it computes."""

    state: State
    embed: Callable[[Tensor], Tensor]


class Halves(nn.Module):
    """Instance normalization of the first half of the channels, batch normalization of the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat((self.IN(maps[:, : self.half]), self.BN(maps[:, self.half :])), 1)


def randomize_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give its normalizations random statistics, scales and shifts, and set evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            if "Norm" in type(part).__name__ and tensor.is_floating_point():
                low, high = (0.5, 1.5) if name in ("weight", "running_var") else (-0.3, 0.3)
                tensor.data = low + (high - low) * torch.rand(tensor.shape, generator=generator)
    return module.eval()


def resnet(depth: str, *, last_stride: int, ibn: bool = False, seed: int = 0) -> nn.Module:
    """The same network at every call, which must not be changed; random numbers drawn next are the same, too."""
    network = _resnet(depth, last_stride, ibn, seed)
    torch.manual_seed(seed)
    return network


@functools.lru_cache(maxsize=4)
def _resnet(depth: str, last_stride: int, ibn: bool, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = torchvision.models.get_model(depth, weights=None)
    if last_stride == 1:
        block = network.layer4[0]
        (block.conv2 if depth == "resnet50" else block.conv1).stride = (1, 1)
        block.downsample[0].stride = (1, 1)
    if ibn:
        for block in (*network.layer1, *network.layer2, *network.layer3):
            block.bn1 = Halves(block.bn1.num_features)
    return randomize_norms(network, seed)


def trunk(network: nn.Module, *, relu: bool = True, ceil: bool = False) -> Callable[[Tensor], Tensor]:
    def maps(images: Tensor) -> Tensor:
        values = network.bn1(network.conv1(images))
        values = values.relu() if relu else values
        values = functional.max_pool2d(values, 3, 2, 0 if ceil else 1, ceil_mode=ceil)
        return network.layer4(network.layer3(network.layer2(network.layer1(values))))

    return maps


def named(prefix: str, module: nn.Module) -> State:
    """Its tensors except those of torchvision's fc."""
    return {f"{prefix}{name}": value for name, value in module.state_dict().items() if not name.startswith("fc.")}


def linear(d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(d_in, d_out, bias=bias).eval()


def torchreid_resnet(depth: str = "resnet18", *, fc512: bool = False, ibn: bool = False) -> Foreign:
    network = resnet(depth, last_stride=1 if fc512 else 2, ibn=ibn)
    maps, width = trunk(network), network.fc.in_features
    fc = (
        randomize_norms(nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU()))
        if fc512
        else nn.Identity()
    )
    classifier = linear(512 if fc512 else width, 7)
    state = named("", network) | named("fc.", fc) | {f"classifier.{k}": v for k, v in classifier.state_dict().items()}
    state |= {f"fc.{name}": value for name, value in fc.state_dict().items()}
    return Foreign(state, lambda images: fc(maps(images).mean((2, 3))))


def osnet(width: float = 0.25, classes: int = 7) -> Foreign:
    """Random tensors by names and shapes, and functions that compute with them."""
    generator = torch.Generator().manual_seed(1)
    c1, c2, c3, c4 = (int(channels * width) for channels in (64, 256, 384, 512))
    state: State = {}

    def convolution(name: str, d_in: int, d_out: int, kernel: int = 1, bias: bool = False) -> None:
        scale = (2 / (d_in * kernel * kernel)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(d_out, d_in, kernel, kernel, generator=generator)
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(d_out, generator=generator)

    def norm(name: str, channels: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{name}.{part}"] = low + torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(5)

    def layer(name: str, d_in: int, d_out: int, kernel: int = 1) -> None:
        convolution(f"{name}.conv", d_in, d_out, kernel)
        norm(f"{name}.bn", d_out)

    def light(name: str, channels: int) -> None:
        convolution(f"{name}.conv1", channels, channels)
        convolution(f"{name}.conv2", 1, channels, 3)
        norm(f"{name}.bn", channels)

    def block(name: str, d_in: int, d_out: int) -> None:
        middle = d_out // 4
        layer(f"{name}.conv1", d_in, middle)
        light(f"{name}.conv2a", middle)
        for suffix, count in (("b", 2), ("c", 3), ("d", 4)):
            for number in range(count):
                light(f"{name}.conv2{suffix}.{number}", middle)
        convolution(f"{name}.gate.fc1", middle, middle // 16, bias=True)
        convolution(f"{name}.gate.fc2", middle // 16, middle, bias=True)
        layer(f"{name}.conv3", middle, d_out)
        if d_in != d_out:
            layer(f"{name}.downsample", d_in, d_out)

    layer("conv1", 3, c1, 7)
    for stage, d_in, d_out in (("conv2", c1, c2), ("conv3", c2, c3), ("conv4", c3, c4)):
        block(f"{stage}.0", d_in, d_out)
        block(f"{stage}.1", d_out, d_out)
        if stage != "conv4":
            layer(f"{stage}.2.0", d_out, d_out)
    layer("conv5", c4, c4)
    state["fc.0.weight"] = torch.randn(512, c4, generator=generator) * c4**-0.5
    state["fc.0.bias"] = 0.1 * torch.randn(512, generator=generator)
    norm("fc.1", 512)
    state["classifier.weight"] = torch.randn(classes, 512, generator=generator)
    state["classifier.bias"] = torch.randn(classes, generator=generator)
    return Foreign(state, lambda images: osnet_forward(state, images))


def osnet_forward(s: State, images: Tensor) -> Tensor:
    def normed(name: str, maps: Tensor) -> Tensor:
        parts = (s[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(maps, *parts)

    def layer(name: str, maps: Tensor, stride: int = 1) -> Tensor:
        kernel = s[f"{name}.conv.weight"]
        return normed(f"{name}.bn", functional.conv2d(maps, kernel, None, stride, kernel.shape[-1] // 2))

    def light(name: str, maps: Tensor) -> Tensor:
        maps = functional.conv2d(maps, s[f"{name}.conv1.weight"])
        deep = functional.conv2d(maps, s[f"{name}.conv2.weight"], None, 1, 1, 1, maps.shape[1])
        return normed(f"{name}.bn", deep).relu()

    def gated(name: str, maps: Tensor) -> Tensor:
        hidden = maps.mean((2, 3), keepdim=True)
        hidden = functional.conv2d(hidden, s[f"{name}.fc1.weight"], s[f"{name}.fc1.bias"]).relu()
        return maps * functional.conv2d(hidden, s[f"{name}.fc2.weight"], s[f"{name}.fc2.bias"]).sigmoid()

    def block(name: str, maps: Tensor) -> Tensor:
        first = layer(f"{name}.conv1", maps).relu()
        total = gated(f"{name}.gate", light(f"{name}.conv2a", first))
        for suffix, count in (("b", 2), ("c", 3), ("d", 4)):
            stream = first
            for number in range(count):
                stream = light(f"{name}.conv2{suffix}.{number}", stream)
            total = total + gated(f"{name}.gate", stream)
        beside = layer(f"{name}.downsample", maps) if f"{name}.downsample.conv.weight" in s else maps
        return (layer(f"{name}.conv3", total) + beside).relu()

    maps = functional.max_pool2d(layer("conv1", images, 2).relu(), 3, 2, 1)
    for stage in ("conv2", "conv3", "conv4"):
        maps = block(f"{stage}.1", block(f"{stage}.0", maps))
        if stage != "conv4":
            maps = functional.avg_pool2d(layer(f"{stage}.2.0", maps).relu(), 2)
    pooled = layer("conv5", maps).relu().mean((2, 3))
    return normed("fc.1", functional.linear(pooled, s["fc.0.weight"], s["fc.0.bias"])).relu()


def fastreid(
    depth: str = "resnet18",
    *,
    ibn: bool = False,
    gem: bool = False,
    neck: str = "bottleneck.0",
    reduced: int = 0,
    pixels: bool = True,
    classifier: str = "weight",
) -> Foreign:
    """neck: name of its batch normalization, "" for none. reduced: outputs of a 1 x 1 convolution before it."""
    network = resnet(depth, last_stride=1, ibn=ibn)
    maps, width = trunk(network, ceil=True), network.fc.in_features
    state = named("backbone.", network)
    p = torch.tensor([2.6])
    if gem:
        state["heads.pool_layer.p"] = p
    reduce = nn.Conv2d(width, reduced, 1, bias=False) if reduced else nn.Identity()
    out = reduced or width
    norm = randomize_norms(nn.BatchNorm2d(out)) if neck else nn.Identity()
    if neck:
        norm.bias.data.zero_()  # frozen at zero in its training
    if reduced:
        state["heads.bottleneck.0.weight"], neck = reduce.weight.detach(), "bottleneck.1"
    state |= {f"heads.{neck}.{name}": value for name, value in norm.state_dict().items()}
    state[f"heads.{classifier}"] = torch.randn(7, out)
    if pixels:
        for name, values in (("mean", (123.675, 116.28, 103.53)), ("std", (58.395, 57.12, 57.375))):
            state[f"pixel_{name}"] = torch.tensor(values).view(1, 3, 1, 1)

    def embed(images: Tensor) -> Tensor:
        values = maps(images)
        if gem:
            pooled = functional.adaptive_avg_pool2d(values.clamp(min=1e-6).pow(p), 1).pow(1 / p)
        else:
            pooled = functional.adaptive_avg_pool2d(values, 1)
        return norm(reduce(pooled))[..., 0, 0]

    return Foreign(state, embed)


def strong_baseline(depth: str = "resnet18", *, ibn: bool = False, neck: bool = True) -> Foreign:
    network = resnet(depth, last_stride=1, ibn=ibn)
    maps, width = trunk(network, relu=ibn), network.fc.in_features
    norm = randomize_norms(nn.BatchNorm1d(width)) if neck else nn.Identity()
    if neck:
        norm.bias.data.zero_()
    classifier = linear(width, 7, bias=not neck)
    state = named("base.", network) | named("bottleneck.", norm) | named("classifier.", classifier)
    if ibn:
        state |= {"base.fc.weight": torch.randn(1000, width), "base.fc.bias": torch.randn(1000)}
    return Foreign(state, lambda images: norm(maps(images).mean((2, 3))))


def layumi(depth: str = "resnet18", *, bottleneck: int = 512, stride: int = 2) -> Foreign:
    network = resnet(depth, last_stride=stride)
    maps, width = trunk(network), network.fc.in_features
    parts: list[nn.Module] = [nn.Linear(width, bottleneck)] if bottleneck else []
    block = randomize_norms(nn.Sequential(*parts, nn.BatchNorm1d(bottleneck or width), nn.Dropout(0.5)))
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    state |= named("classifier.add_block.", block)
    state |= named("classifier.classifier.0.", linear(bottleneck or width, 7))
    return Foreign(state, lambda images: block(maps(images).mean((2, 3))))
