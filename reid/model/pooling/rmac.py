"""Regional maximum activations: Tolias, Sicre, Jégou, ICLR 2016.

"Particular Object Retrieval with Integral Max-Pooling of CNN Activations".
"""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor
from torch.nn import functional

from reid.errors import InputError
from reid.model.pooling.contract import Pooling

_OVERLAP = Fraction(2, 5)


class RMAC(Pooling):
    """Sum of the maxima of all regions of `square_regions`, each normalized to unit length.

    Args:
        channels: Number of channels, unused.
        levels: Number of levels of regions.
        l2: Normalize the result to unit length.

    Raises:
        InputError: If `levels` is below 1.
    """

    def __init__(self, channels: int, *, levels: int = 3, l2: bool = False) -> None:
        super().__init__(channels, l2=l2)
        if levels < 1:
            raise InputError(f"R-MAC needs 1 level or more, not {levels}")
        self.levels = levels

    def check_map(self, height: int, width: int) -> None:
        """Check that maps are large enough.

        Args:
            height: Height of the map.
            width: Width of the map.

        Raises:
            InputError: If the map has fewer positions than regions.
        """
        square_regions(height, width, self.levels)

    def _pool(self, maps: Tensor) -> Tensor:
        regions = square_regions(maps.shape[2], maps.shape[3], self.levels)
        pooled = maps.new_zeros(maps.shape[:2])
        for side in sorted({region[2] for region in regions}):
            # All squares of one side at once, then a selection: a quarter of the time of region after region.
            squares = functional.max_pool2d(maps, side, stride=1)
            selected = [top * squares.shape[3] + left for top, left, size in regions if size == side]
            pooled = pooled + functional.normalize(squares.flatten(2)[:, :, selected], dim=1).sum(2)
        return pooled


def square_regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """Compute the square regions of a map (section 3.2 of the paper).

    At level l the side is floor(2 min(height, width) / (l + 1)), with l regions along the shorter side of the map and
    l + m - 1 along the longer; m is chosen such that the regions of level 1 overlap by as close to 40 % as possible.
    They are spread evenly, positions rounded down.

    Args:
        height: Height of the map.
        width: Width of the map.
        levels: Number of levels.

    Returns:
        (top, left, side) per region, level by level.

    Raises:
        InputError: If the map has fewer positions than regions.
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
            f"R-MAC of {levels} levels has {len(regions)} regions, more than the {height} x {width} positions of the "
            "map; use fewer levels or larger images"
        )
    return regions


def _level_1_count(short: int, long: int) -> int:
    if short == long:
        return 1
    # With m squares of side `short`, neighbors are (long - short) / (m - 1) apart. Fractions, because rounding must not
    # decide between two m that are equally close; the smaller is used then.
    return min(range(2, long - short + 2), key=lambda m: abs(1 - Fraction(long - short, (m - 1) * short) - _OVERLAP))


def _spread(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [i * (length - side) // (count - 1) for i in range(count)]
