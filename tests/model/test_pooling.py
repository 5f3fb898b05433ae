"""Poolings against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid.model.pooling import POOLINGS

MAPS = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0))
EXPECTED = {
    "average": MAPS.numpy().mean((2, 3)),
    "max": MAPS.numpy().max((2, 3)),
    "average_max": np.concatenate([MAPS.numpy().mean((2, 3)), MAPS.numpy().max((2, 3))], axis=1),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_value_and_width(name: str) -> None:
    pooling = POOLINGS[name]()
    pooled = pooling(MAPS)
    np.testing.assert_allclose(pooled.numpy(), EXPECTED[name], rtol=1e-5, atol=1e-7)
    assert pooling.width(5) == pooled.shape[1]


@pytest.mark.parametrize("name", POOLINGS)
def test_bfloat16_maps_give_float32_not_rounded_again(name: str) -> None:
    maps = MAPS.bfloat16()
    pooled = POOLINGS[name]()(maps)
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled, POOLINGS[name]()(maps.float()))
