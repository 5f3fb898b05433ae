"""The map as it is, every place of it an input of its own: what stands before a fully connected layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from reid.errors import InputError
from reid.io.checkpoint import load_state_dict
from reid.model.pooling import Pooling


class Flatten(Pooling):
    """Maps (B, C, h, w) -> (B, C h w), channel by channel and row by row, as Caffe orders them.

    It keeps where a thing is, so it needs maps of one size, and stands outside POOLINGS, whose parts take any.
    """

    def __init__(self, channels: int, *, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def width(self, channels: int) -> int:
        return channels * self.size[0] * self.size[1]

    def check_map(self, height: int, width: int) -> None:
        if (height, width) != self.size:
            raise InputError(
                f"flattening was built for maps of {self.size[0]} x {self.size[1]}, not {height} x {width}: "
                "give images of the size the backbone was made for"
            )

    def pool(self, maps: Tensor) -> Tensor:
        self.check_map(maps.shape[2], maps.shape[3])
        return maps.flatten(1)


class FullyConnectedBlock(nn.Sequential):
    """A fully connected layer `name`, ReLU, dropout: (B, in_features) -> (B, out_features)."""

    def __init__(self, name: str, in_features: int, out_features: int, dropout: float, std: float, bias: float) -> None:
        linear = nn.Linear(in_features, out_features)
        nn.init.normal_(linear.weight, std=std)
        nn.init.constant_(linear.bias, bias)
        super().__init__(OrderedDict({name: linear, "relu": nn.ReLU(), "dropout": nn.Dropout(dropout)}))
        self.in_features, self.out_features = in_features, out_features


def load_fully_connected(
    block: FullyConnectedBlock, weights: Mapping[str, Tensor], *, network: str, source: str
) -> bool:
    """Copy the layer's tensors out of the weights of a whole network; False where its pooled width was another."""
    own = {name: tensor for name, tensor in weights.items() if name in block.state_dict()}
    weight = own.get(next(iter(block.state_dict())))
    if weight is not None and weight.ndim == 2 and weight.shape[1] != block.in_features:
        return False
    load_state_dict(block, own, network=network, source=source)
    return True


def check_images(images: Tensor, size: tuple[int, int], network: str) -> None:
    """Raises InputError for images (B, 3, H, W) of another size than the one the network was made for."""
    if tuple(images.shape[2:]) != size:
        raise InputError(
            f"{network} takes images of {size[0]} x {size[1]}, not {images.shape[2]} x {images.shape[3]}; "
            f"set INPUT.SIZE [{size[0]}, {size[1]}]"
        )
