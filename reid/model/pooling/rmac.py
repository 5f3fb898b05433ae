"""Regional maximum activations: Tolias, Sicre, Jégou, "Particular Object Retrieval with Integral Max-Pooling of CNN
Activations", ICLR 2016.
"""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor
from torch.nn import functional

from reid.errors import InputError
from reid.model.pooling.contract import Pooling

OVERLAP = Fraction(2, 5)


class RMAC(Pooling):
    """The maximum of every region of `square_regions`, each of unit length, summed."""

    def __init__(self, channels: int, *, levels: int = 3, l2: bool = False) -> None:
        super().__init__(l2=l2)
        if levels < 1:
            raise InputError(f"R-MAC needs 1 level or more, not {levels}")
        self.levels = levels

    def check_map(self, height: int, width: int) -> None:
        square_regions(height, width, self.levels)

    def pool(self, maps: Tensor) -> Tensor:
        regions = square_regions(maps.shape[2], maps.shape[3], self.levels)
        pooled = maps.new_zeros(maps.shape[:2])
        for side in sorted({region[2] for region in regions}):
            # All squares of a side at once, then those wanted: a quarter of the time of region after region.
            squares = functional.max_pool2d(maps, side, stride=1)
            wanted = [top * squares.shape[3] + left for top, left, size in regions if size == side]
            pooled = pooled + functional.normalize(squares.flatten(2)[:, :, wanted], dim=1).sum(2)
        return pooled


def square_regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """(top, left, side) of the square regions of a map, level by level (section 3.2 of the paper).

    At level l the side is floor(2 min(height, width) / (l + 1)), and l regions stand along the shorter side of the
    map, l + m - 1 along the longer; m is how many of level 1 overlap by nearest to 40 %. They are spread evenly,
    places rounded down. Raises InputError where the map has fewer places than regions.
    """
    short, long = min(height, width), max(height, width)
    along = _level_1_count(short, long)
    regions = []
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        rows, columns = (level + along - 1, level) if height > width else (level, level + along - 1)
        regions += [(top, left, side) for top in _spread(height, side, rows) for left in _spread(width, side, columns)]
    if len(regions) > height * width or side < 1:
        raise InputError(
            f"R-MAC of {levels} levels has {len(regions)} regions, more than the {height} x {width} places of the map "
            "hold: take fewer levels or larger images"
        )
    return regions


def _level_1_count(short: int, long: int) -> int:
    if short == long:
        return 1
    # With m squares of side `short`, neighbors stand (long - short) / (m - 1) apart. Fractions, because rounding must
    # not decide between two that are equally near; the fewer are taken then.
    return min(range(2, long - short + 2), key=lambda m: abs(1 - Fraction(long - short, (m - 1) * short) - OVERLAP))


def _spread(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [i * (length - side) // (count - 1) for i in range(count)]
