"""The backbone of networks small enough that a whole run takes a second."""

from __future__ import annotations

from torch import Tensor, nn


class SmallTrunk(nn.Module):
    """(B, 3, H, W) -> (B, 12, H / 2, W / 2)."""

    out_channels = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv2(self.bn1(self.conv1(images)).relu()).relu()
