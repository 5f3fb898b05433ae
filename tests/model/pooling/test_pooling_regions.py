"""CroW and R-MAC against loops in float64 and regions worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.model.pooling.crow import CroW
from reid.model.pooling.rmac import RMAC, square_regions
from reid.model.pooling.weighted_gem import RegionalWeightedGeM

MAPS = torch.randn(2, 4, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).relu()


def test_crow_by_loops() -> None:
    maps = MAPS.clone()
    maps[0, 2] = 0  # a channel without a value weighs nothing
    for x, pooled in zip(maps.numpy(), CroW(4)(maps).numpy(), strict=True):
        sums = np.zeros((8, 4))
        filled = np.zeros(4)
        for c in range(4):
            for i in range(8):
                for j in range(4):
                    sums[i, j] += x[c, i, j]
                    filled[c] += (x[c, i, j] != 0) / 32
        length = math.sqrt((sums**2).sum())
        spatial = np.sqrt(sums / length)
        for c in range(4):
            weight = math.log(filled.sum() / filled[c]) if filled[c] else 0.0
            # where all channels are 0 the weight is floored above 0, and the value under it is 0
            assert pooled[c] == pytest.approx(weight * (spatial * x[c]).sum(), rel=1e-12)


def test_crow_s_attention_is_its_spatial_weight() -> None:
    attention = CroW(4).attention(MAPS + 0.1)
    torch.testing.assert_close((attention**4).sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_regions_of_a_square_map_by_hand() -> None:
    """14 x 14, the map of the paper's networks: 1 + 4 + 9 regions of sides 14, 9 and 7."""
    regions = square_regions(14, 14, 3)
    assert regions[0] == (0, 0, 14)
    assert regions[1:5] == [(0, 0, 9), (0, 5, 9), (5, 0, 9), (5, 5, 9)]
    assert {side for _, _, side in regions[5:]} == {7}
    assert [left for _, left, _ in regions[5:8]] == [0, 3, 7] and len(regions) == 14


def test_regions_of_a_tall_map_by_hand() -> None:
    """16 x 8: squares of 8 at 0, 4, 8 overlap by 50 %, two of them by none; 50 % is nearer to 40 %."""
    regions = square_regions(16, 8, 2)
    assert regions[:3] == [(0, 0, 8), (4, 0, 8), (8, 0, 8)]
    side = 2 * 8 // 3
    tops = [0, 3, 7, 11]  # floor(i (16 - 5) / 3)
    assert regions[3:] == [(top, left, side) for top in tops for left in (0, 3)]
    wide = square_regions(8, 16, 2)
    assert sorted((left, top, size) for top, left, size in wide) == sorted(regions)


def test_of_equally_near_overlaps_the_fewer_regions_are_taken() -> None:
    """18 x 10: two squares of 10 overlap by 20 %, three by 60 %."""
    assert square_regions(18, 10, 1) == [(0, 0, 10), (8, 0, 10)]


def test_rmac_by_loops() -> None:
    pooled = RMAC(4, levels=2)(MAPS).numpy()
    for x, found in zip(MAPS.numpy(), pooled, strict=True):
        total = np.zeros(4)
        for top, left, side in square_regions(8, 4, 2):
            vector = np.array([x[c, top : top + side, left : left + side].max() for c in range(4)])
            total += vector / max(math.sqrt((vector**2).sum()), 1e-12)
        np.testing.assert_allclose(found, total, rtol=1e-12)


def test_rmac_of_one_level_on_a_square_map_is_the_maximum_of_unit_length() -> None:
    square = MAPS[:, :, :4]
    torch.testing.assert_close(RMAC(4, levels=1)(square), torch.nn.functional.normalize(square.amax((2, 3)), dim=1))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (4, 2), (3, 3)])
def test_more_regions_than_places_are_refused(size: tuple[int, int]) -> None:
    message = f"R-MAC of 3 levels has .* regions, more than the {size[0]} x {size[1]} positions"
    with pytest.raises(InputError, match=message):
        RMAC(4, levels=3).check_map(*size)
    with pytest.raises(InputError, match=message):
        RMAC(4, levels=3)(torch.zeros(1, 4, *size))


def test_more_weightings_than_places_are_refused() -> None:
    pooling = RegionalWeightedGeM(4, regions=9)
    pooling.check_map(3, 3)
    with pytest.raises(InputError, match="9 regions, more than the 4 x 2 positions"):
        pooling.check_map(4, 2)
