"""Weighted generalized mean: Wu, Irie, Hiramatsu, Kashino, ICIP 2018.

A 3x3 convolution gives every position a score, and a softmax over the positions of an image turns scores into weights w
that sum to 1. The convolution has no bias, which the softmax would cancel.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reid.errors import InputError
from reid.model.pooling.contract import Pooling
from reid.model.pooling.gem import add_exponent, generalized_mean


class WeightedGeM(Pooling):
    """Weighted generalized mean, (sum over positions of w x^p)^(1/p), with x clamped to at least 1e-6.

    The scores start at 0, so it starts as GeM. The weights of an image sum to 1.

    Args:
        channels: Number of channels C.
        p: Initial exponent, above 0.
        p_per_channel: Use one exponent per channel instead of one for all.
        p_learnable: Train the exponent.
        l2: Normalize the result to unit length.

    Raises:
        InputError: If `p` is not a finite number above 0.
    """

    p: Tensor

    def __init__(
        self, channels: int, *, p: float = 3.0, p_per_channel: bool = False, p_learnable: bool = True, l2: bool = False
    ) -> None:
        super().__init__(channels, l2=l2)
        add_exponent(self, channels, p=p, p_per_channel=p_per_channel, p_learnable=p_learnable)
        self.omega = _scores(channels, 1, std=0.0)

    def _pool(self, maps: Tensor) -> Tensor:
        return generalized_mean(maps, self.p, _log_weights(self.omega(maps))[:, 0])

    def _attention(self, maps: Tensor) -> Tensor:
        return _log_weights(self.omega(maps))[:, 0].exp()


class WeightedSum(Pooling):
    """Sum over positions of w x: weighted GeM with p = 1, but without its clamping of x.

    Args:
        channels: Number of channels C.
        l2: Normalize the result to unit length.
    """

    def __init__(self, channels: int, *, l2: bool = False) -> None:
        super().__init__(channels, l2=l2)
        self.omega = _scores(channels, 1, std=0.0)

    def _pool(self, maps: Tensor) -> Tensor:
        return (maps * self._attention(maps)[:, None]).sum((2, 3))

    def _attention(self, maps: Tensor) -> Tensor:
        return _log_weights(self.omega(maps))[:, 0].exp()


class RegionalWeightedGeM(Pooling):
    """Sum of the weighted GeMs of several learned weightings, each normalized to unit length, as R-MAC sums regions.

    The scores start from N(0, 0.01): equal ones would stay equal, since a sum treats all regions alike. The weights of
    each region of an image sum to 1.

    Args:
        channels: Number of channels C.
        regions: Number of weightings.
        p: Initial exponent, above 0.
        p_per_channel: Use one exponent per channel instead of one for all.
        p_learnable: Train the exponent.
        l2: Normalize the result to unit length.

    Raises:
        InputError: If `regions` is below 1 or `p` is not a finite number above 0.
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
        super().__init__(channels, l2=l2)
        if regions < 1:
            raise InputError(f"regional weighted GeM needs 1 region or more, not {regions}")
        self.regions = regions
        add_exponent(self, channels, p=p, p_per_channel=p_per_channel, p_learnable=p_learnable)
        self.omega = _scores(channels, regions, std=0.01)

    def check_map(self, height: int, width: int) -> None:
        """Check that maps are large enough.

        Args:
            height: Height of the map.
            width: Width of the map.

        Raises:
            InputError: If the map has fewer positions than regions.
        """
        if self.regions > height * width:
            raise InputError(
                f"regional weighted GeM has {self.regions} regions, more than the {height} x {width} positions of the "
                "map; use fewer regions or larger images"
            )

    def _pool(self, maps: Tensor) -> Tensor:
        log_weights = _log_weights(self.omega(maps)).unbind(1)
        return sum(
            (functional.normalize(generalized_mean(maps, self.p, region), dim=1) for region in log_weights),
            start=maps.new_zeros(()),
        )

    def _attention(self, maps: Tensor) -> Tensor:
        return _log_weights(self.omega(maps)).exp()


def _scores(channels: int, regions: int, *, std: float) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, regions, 3, padding=1, bias=False)
    nn.init.normal_(convolution.weight, std=std)
    return convolution


def _log_weights(scores: Tensor) -> Tensor:
    """Compute the log-softmax over positions of scores (B, R, h, w), in the same shape."""
    return scores.flatten(2).log_softmax(2).view_as(scores)
