"""DeepFace: Taigman, Yang, Ranzato, Wolf, CVPR 2014.

"DeepFace: Closing the Gap to Human-Level Performance in Face Verification". The network of figure 2, for images of
152 x 152; its locally connected layers have one kernel per position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid.model.backbones.input_size import check_image_size
from reid.model.connection import LocallyConnected2d


class DeepFaceTrunk(nn.Module):
    """DeepFace up to L6: (B, 3, 152, 152) -> (B, 16, 21, 21).

    C1 32@11x11 -> 142, M2 3x3 of stride 2, rounded up -> 71, C3 16@9x9 -> 63, L4 16@9x9 local -> 55, L5 16@7x7 local of
    stride 2 -> 25, L6 16@5x5 local -> 21; a ReLU after each but M2. Weights start from He's normal distribution, since
    none are published.
    """

    input_size = (152, 152)
    map_size = (21, 21)
    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 32, 11)
        self.m2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.c3 = nn.Conv2d(32, 16, 9)
        self.l4 = LocallyConnected2d(16, 16, 9, input_size=(63, 63))
        self.l5 = LocallyConnected2d(16, 16, 7, input_size=(55, 55), stride=2)
        self.l6 = LocallyConnected2d(16, 16, 5, input_size=(25, 25))
        for name, parameter in self.named_parameters():
            if name in ("c1.weight", "c3.weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif name in ("c1.bias", "c3.bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, 152, 152) float32, normalized.

        Returns:
            (B, 16, 21, 21).

        Raises:
            InputError: If the images have a different size.
        """
        check_image_size(images, self.input_size, "deepface")
        maps = self.c3(self.m2(self.c1(images).relu())).relu()
        for layer in (self.l4, self.l5, self.l6):
            maps = torch.relu(layer(maps))
        return maps
