"""What an exported file takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reid.data.images.normalization import normalize
from reid.errors import InputError, unknown_name
from reid.evaluation.features import FEATURES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSINGS = ("tracker", "inside")
TRACKER_SIZE = (256, 128)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Form:
    """What goes into an exported file and what comes out of it.

    size: height and width. resize: the filter by which crops come to it, with antialiasing; the caller's affair.
    mean, std: of RGB in [0, 1], by which the network was trained.
    feature: the Eigenlayer's "input" or "output". normalized: rows of unit length. flip: the mean of the features of an
    image and its mirror image, before that.
    preprocessing: "tracker", images (B, 3, H, W) float32 that the caller has normalized by ImageNet's mean and std, as
    trackers do; where the network was trained by others, the file makes up for it. "inside": (B, 3, H, W) uint8.
    Images are RGB either way.
    """

    size: tuple[int, int]
    mean: Triple
    std: Triple
    feature: str = "input"
    normalized: bool = True
    flip: bool = False
    preprocessing: str = "tracker"
    resize: str = "bilinear"

    def __post_init__(self) -> None:
        if self.feature not in FEATURES:
            raise unknown_name("feature", self.feature, FEATURES)
        if self.preprocessing not in PREPROCESSINGS:
            raise unknown_name("preprocessing", self.preprocessing, PREPROCESSINGS)
        if min(self.size) < 1 or min(self.std) <= 0:
            raise InputError(f"an export of size {self.size} with std {self.std}: both must be above 0")

    @property
    def dtype(self) -> torch.dtype:
        """Of the images that the file takes."""
        return torch.uint8 if self.preprocessing == "inside" else torch.float32

    def taken(self, pixels: Tensor) -> Tensor:
        """What the caller of the file feeds for pixels (B, 3, H, W) uint8 RGB of its size."""
        return pixels if self.preprocessing == "inside" else normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)

    def slope_and_offset(self) -> tuple[Tensor, Tensor] | None:
        """What turns images as the file takes them into the network's input, (3,) float64 each; None: nothing."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        if self.preprocessing == "inside":
            return 1 / (255 * std), -mean / std
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return None
        given_mean, given_std = (torch.tensor(v, dtype=torch.float64) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return given_std / std, (given_mean - mean) / std
