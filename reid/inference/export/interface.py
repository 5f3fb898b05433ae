"""Inputs and outputs of an exported file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reid.data.images.normalization import normalize
from reid.errors import InputError, unknown_name
from reid.evaluation.features import FEATURES
from reid.records import IMAGENET_MEAN, IMAGENET_STD

PREPROCESSINGS = ("tracker", "inside")
TRACKER_SIZE = (256, 128)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ExportInterface:
    """Inputs and outputs of an exported file; images are RGB.

    Attributes:
        size: Height and width of the images.
        mean: Per channel, of pixels in [0, 1], as the network was trained.
        std: Per channel, of pixels in [0, 1], as the network was trained.
        feature: The Eigenlayer's "input" or "output".
        normalized: Whether embeddings have unit length.
        flip: Whether the features of an image and its mirror image are averaged, before normalization.
        preprocessing: "tracker": (B, 3, H, W) float32, normalized by the caller with ImageNet's mean and std, as
            trackers do; the file converts these to `mean` and `std`. "inside": (B, 3, H, W) uint8, normalized by the
            file.
        resize: Filter with which the caller resizes crops, antialiased.
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
        """Data type of the input images."""
        return torch.uint8 if self.preprocessing == "inside" else torch.float32

    def prepare_images(self, pixels: Tensor) -> Tensor:
        """Convert pixels to the input that the exported file expects.

        Args:
            pixels: (B, 3, H, W) uint8 RGB, already of `size`.

        Returns:
            (B, 3, H, W) of `dtype`.
        """
        return pixels if self.preprocessing == "inside" else normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)

    def slope_and_offset(self) -> tuple[Tensor, Tensor] | None:
        """Compute the affine map from the input of the file to the input of the network.

        Returns:
            Slope and offset, (3,) float64 each, or None if the two are equal.
        """
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        if self.preprocessing == "inside":
            return 1 / (255 * std), -mean / std
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return None
        caller_mean, caller_std = (torch.tensor(v, dtype=torch.float64) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return caller_std / std, (caller_mean - mean) / std
