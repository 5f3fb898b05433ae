"""Weighted generalized mean: Wu, Irie, Hiramatsu, Kashino, ICIP 2018.

A 3x3 convolution gives every place a score, and a softmax over the places of an image turns scores into weights w that
sum to 1. The convolution has no bias, which the softmax would cancel.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError
from reid.model.pooling.contract import Pooling
from reid.model.pooling.gem import add_exponent, generalized_mean


class WeightedGeM(Pooling):
    """(sum over places of w x^p)^(1/p), x at least 1e-6. The scores start at 0, so it starts as GeM."""

    p: Tensor

    def __init__(
        self, channels: int, *, p: float = 3.0, p_per_channel: bool = False, p_learnable: bool = True, l2: bool = False
    ) -> None:
        super().__init__(l2=l2)
        add_exponent(self, channels, p=p, p_per_channel=p_per_channel, p_learnable=p_learnable)
        self.omega = _scores(channels, 1, std=0.0)

    def pool(self, maps: Tensor) -> Tensor:
        return generalized_mean(maps, self.p, _log_weights(self.omega(maps))[:, 0])

    def weights(self, maps: Tensor) -> Tensor:
        """(B, h, w), the sum of each image 1."""
        return _log_weights(self.omega(maps))[:, 0].exp()


class WeightedSum(Pooling):
    """Sum over places of w x: weighted GeM with p = 1, but for values below 1e-6, which count as they are."""

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(l2=l2)
        self.omega = _scores(channels, 1, std=0.0)

    def pool(self, maps: Tensor) -> Tensor:
        return (maps * self.weights(maps)[:, None]).sum((2, 3))

    def weights(self, maps: Tensor) -> Tensor:
        """(B, h, w), the sum of each image 1."""
        return _log_weights(self.omega(maps))[:, 0].exp()


class RegionalWeightedGeM(Pooling):
    """A weighted GeM for each of `regions` learned weightings, each of unit length, summed as R-MAC sums its regions.

    The scores start from N(0, 0.01): equal ones would stay equal, since a sum treats all regions alike.
    """

    p: Tensor

    def __init__(
        self,
        channels: int,
        *,
        regions: int = 4,
        p: float = 3.0,
        p_per_channel: bool = False,
        p_learnable: bool = True,
        l2: bool = False,
    ) -> None:
        super().__init__(l2=l2)
        if regions < 1:
            raise InputError(f"regional weighted GeM needs 1 region or more, not {regions}")
        self.regions = regions
        add_exponent(self, channels, p=p, p_per_channel=p_per_channel, p_learnable=p_learnable)
        self.omega = _scores(channels, regions, std=0.01)

    def check_map(self, height: int, width: int) -> None:
        if self.regions > height * width:
            raise InputError(
                f"regional weighted GeM has {self.regions} regions, more than the {height} x {width} places of the "
                "map: take fewer regions or larger images"
            )

    def pool(self, maps: Tensor) -> Tensor:
        log_weights = _log_weights(self.omega(maps)).unbind(1)
        return sum(
            (functional.normalize(generalized_mean(maps, self.p, region), dim=1) for region in log_weights),
            start=maps.new_zeros(()),
        )

    def weights(self, maps: Tensor) -> Tensor:
        """(B, regions, h, w), the sum of each image's region 1."""
        return _log_weights(self.omega(maps)).exp()


def _scores(channels: int, regions: int, *, std: float) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, regions, 3, padding=1, bias=False)
    nn.init.normal_(convolution.weight, std=std)
    return convolution


def _log_weights(scores: Tensor) -> Tensor:
    """ln of the softmax over the places, in the shape of the scores, (B, R, h, w)."""
    return scores.flatten(2).log_softmax(2).view_as(scores)
