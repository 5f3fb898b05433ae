"""CaffeNet, Caffe's reference model of Krizhevsky, Sutskever, Hinton 2012: the smaller baseline of SVDNet.

Layers, initial weights and dropout are those of the authors' release of SVDNet, for images of 227 x 227.
"""

from __future__ import annotations

from torch import Tensor, nn

from reid.model.backbones.input_size import check_image_size


class CaffeNetTrunk(nn.Module):
    """CaffeNet up to its last pooling: (B, 3, 227, 227) -> (B, 256, 6, 6).

    Pooling rounds up, as Caffe's does, and comes before the local response normalization. Tensors have Caffe's names.
    """

    input_size = (227, 227)
    map_size = (6, 6)
    out_channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 96, 11, stride=4, bias=0.0)
        self.conv2 = _convolution(96, 256, 5, groups=2, bias=1.0)
        self.conv3 = _convolution(256, 384, 3, bias=0.0)
        self.conv4 = _convolution(384, 384, 3, groups=2, bias=1.0)
        self.conv5 = _convolution(384, 256, 3, groups=2, bias=1.0)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, 227, 227) float32, normalized.

        Returns:
            (B, 256, 6, 6).

        Raises:
            InputError: If the images have a different size.
        """
        check_image_size(images, self.input_size, "caffenet")
        maps = self.norm(self.pool(self.conv1(images).relu()))
        maps = self.norm(self.pool(self.conv2(maps).relu()))
        maps = self.conv4(self.conv3(maps).relu()).relu()
        return self.pool(self.conv5(maps).relu())


def _convolution(d_in: int, d_out: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: float) -> nn.Conv2d:
    padding = 0 if stride > 1 else kernel // 2
    layer = nn.Conv2d(d_in, d_out, kernel, stride=stride, padding=padding, groups=groups)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer
