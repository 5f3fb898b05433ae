"""OSNet: Zhou, Yang, Cavallaro, Xiang, "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019.

Written from the paper; the names of the tensors are those of the published ImageNet weights, which load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid.io.checkpoint import load_state_dict

WIDTHS = {"osnet_x0_25": 0.25, "osnet_x0_5": 0.5, "osnet_x0_75": 0.75, "osnet_x1_0": 1.0}
CHANNELS = (64, 256, 384, 512)  # table 1 of the paper: conv1, then the outputs of conv2, conv3 and conv4
FEATURE_DIM = 512  # the fc layer keeps this width at every width of the network


class ConvLayer(nn.Module):
    """Convolution, batch normalization and ReLU.

    Args:
        d_in: Number of input channels.
        d_out: Number of output channels.
        kernel: Kernel size, odd; the padding keeps the size of the maps.
        stride: Stride of the convolution.
        linear: Leave the ReLU out.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int = 1, stride: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(d_out)
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            maps: (B, d_in, H, W) floating.

        Returns:
            (B, d_out, H / stride, W / stride).
        """
        maps = self.bn(self.conv(maps))
        return maps if self.linear else torch.relu_(maps)


class LightConv3x3(nn.Module):
    """Lite 3x3 of figure 3b: a linear pointwise convolution, a depthwise 3x3, batch normalization, ReLU.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            maps: (B, channels, H, W) floating.

        Returns:
            Maps of the same shape.
        """
        return torch.relu_(self.bn(self.conv2(self.conv1(maps))))


class VectorConv(nn.Conv2d):
    """A 1x1 convolution of maps of a single pixel, computed as the matrix product that it is.

    PyTorch takes longer to prepare a convolution on a CPU than to compute one of so few numbers. The weight keeps the
    shape and name that published weights have.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            maps: (B, C, 1, 1) floating.

        Returns:
            (B, out_channels, 1, 1).
        """
        return functional.linear(maps.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class AggregationGate(nn.Module):
    """The unified aggregation gate G of Eq. 3: one weight in (0, 1) per channel of a stream, from the stream's mean.

    A small network shared by all streams: global average, one hidden layer of C / 16, sigmoid.

    Args:
        channels: Number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.fc1 = VectorConv(channels, hidden, 1)
        self.fc2 = VectorConv(hidden, channels, 1)

    def forward(self, stream: Tensor) -> Tensor:
        """Weight a stream.

        Args:
            stream: (B, C, H, W) floating.

        Returns:
            The weighted stream, same shape.
        """
        return stream * torch.sigmoid(self.fc2(torch.relu(self.fc1(stream.mean((2, 3), keepdim=True)))))


class OSBlock(nn.Module):
    """The omni-scale residual block of figure 4: streams of 1 to 4 lite 3x3 layers, gated and added, then a residual.

    Args:
        d_in: Number of input channels.
        d_out: Number of output channels.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        middle = d_out // 4
        self.conv1 = ConvLayer(d_in, middle)
        self.conv2a = LightConv3x3(middle)
        self.conv2b = nn.Sequential(*(LightConv3x3(middle) for _ in range(2)))
        self.conv2c = nn.Sequential(*(LightConv3x3(middle) for _ in range(3)))
        self.conv2d = nn.Sequential(*(LightConv3x3(middle) for _ in range(4)))
        self.gate = AggregationGate(middle)
        self.conv3 = ConvLayer(middle, d_out, linear=True)
        self.downsample = ConvLayer(d_in, d_out, linear=True) if d_in != d_out else None

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the block.

        Args:
            maps: (B, d_in, H, W) floating.

        Returns:
            (B, d_out, H, W).
        """
        reduced = self.conv1(maps)
        gated = self.gate(self.conv2a(reduced)) + self.gate(self.conv2b(reduced))
        gated = gated + self.gate(self.conv2c(reduced)) + self.gate(self.conv2d(reduced))
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return torch.relu(self.conv3(gated) + shortcut)


class OSNetTrunk(nn.Module):
    """OSNet up to its last map: (B, 3, H, W) float32 -> (B, 512 * width, H/16, W/16).

    Args:
        width: Factor of the channels: 0.25, 0.5, 0.75 or 1.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        c1, c2, c3, c4 = (int(channels * width) for channels in CHANNELS)
        self.out_channels = c4
        self.conv1 = ConvLayer(3, c1, kernel=7, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(OSBlock(c1, c2), OSBlock(c2, c2), _transition(c2))
        self.conv3 = nn.Sequential(OSBlock(c2, c3), OSBlock(c3, c3), _transition(c3))
        self.conv4 = nn.Sequential(OSBlock(c3, c4), OSBlock(c4, c4))
        self.conv5 = ConvLayer(c4, c4)
        _initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            (B, out_channels, H/16, W/16).
        """
        maps = self.maxpool(self.conv1(images))
        return self.conv5(self.conv4(self.conv3(self.conv2(maps))))


class OSNet(OSNetTrunk):
    """The bare, published OSNet: images (B, 3, H, W) float32 -> logits (B, num_classes).

    Its state dict has the names of the published weights.

    Args:
        width: Factor of the channels: 0.25, 0.5, 0.75 or 1.
        num_classes: Number of classes.
    """

    def __init__(self, width: float, num_classes: int = 1000) -> None:
        super().__init__(width)
        self.fc = FeatureBlock(self.out_channels)
        self.classifier = nn.Linear(FEATURE_DIM, num_classes)
        _initialize(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            Logits (B, num_classes) float32.
        """
        return self.classifier(self.fc(super().forward(images).mean((2, 3))))


class FeatureBlock(nn.Sequential):
    """OSNet's fc block: linear to 512, batch normalization, ReLU, (B, in_features) -> (B, 512).

    Args:
        in_features: Width of the input vector.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__(nn.Linear(in_features, FEATURE_DIM), nn.BatchNorm1d(FEATURE_DIM), nn.ReLU())
        self.in_features, self.out_features = in_features, FEATURE_DIM
        _initialize(self)


def osnet_trunk(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> OSNetTrunk:
    """Build the backbone; weights must fit the whole published OSNet, of which the layers up to the last map are used.

    Args:
        name: A key of `WIDTHS`.
        weights: Published state dict of the whole OSNet, or None to start from scratch.
        source: Name of the weights in error messages.

    Returns:
        Backbone with the given weights or new ones.

    Raises:
        InputError: If the weights do not fit.
    """
    if weights is None:
        return OSNetTrunk(WIDTHS[name])
    bare = published_osnet(name, weights, source)
    trunk = OSNetTrunk(WIDTHS[name])
    own = trunk.state_dict()
    trunk.load_state_dict({key: value for key, value in bare.state_dict().items() if key in own})
    return trunk


def published_osnet(name: str, weights: Mapping[str, Tensor], source: str) -> OSNet:
    """Build a bare OSNet with published weights.

    Args:
        name: A key of `WIDTHS`.
        weights: State dict of the whole OSNet, for any number of classes.
        source: Name of the weights in error messages.

    Returns:
        Whole OSNet including its classifier, on the CPU.

    Raises:
        InputError: If the weights do not fit.
    """
    # A re-identification checkpoint of the same OSNet differs in its number of classes only, and those are not used.
    classifier = weights.get("classifier.weight")
    classes = len(classifier) if classifier is not None and classifier.ndim == 2 else 1000
    bare = OSNet(WIDTHS[name], classes)
    load_state_dict(bare, weights, network=name, source=source)
    return bare


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(ConvLayer(channels, channels), nn.AvgPool2d(2))


def _initialize(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
