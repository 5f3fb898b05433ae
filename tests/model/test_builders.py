"""The builders called with values of other types: one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from reid.errors import InputError
from reid.model.classifiers import build_classifier
from reid.model.eigenlayer import build_eigenlayer
from reid.model.pooling import build_pooling


class Maps(nn.Module):
    out_channels = 5


@pytest.mark.parametrize("size", ["8", 8.0, -8, None, True, [8]])
def test_a_size_that_is_no_count(size: Any) -> None:
    for build in (
        lambda: build_eigenlayer(size, 4),
        lambda: build_eigenlayer(64, size),
        lambda: build_classifier("linear", size, 3),
        lambda: build_classifier("cosine", 8, size),
        lambda: build_pooling("netvlad", Maps(), clusters=size),
    ):
        with pytest.raises(InputError, match="must be a whole number of at least"):
            build()


def test_counts_of_numpy_are_counts() -> None:
    assert build_eigenlayer(np.int64(8), np.int32(4)).weight.shape == (4, 8)


def test_options_of_a_pooling_are_checked() -> None:
    with pytest.raises(InputError, match="p of the pooling gem must be a number, not '3'"):
        build_pooling("gem", Maps(), p="3")
    with pytest.raises(InputError, match="unknown option of the pooling netvlad 'cluster'; did you mean clusters"):
        build_pooling("netvlad", Maps(), cluster=3)
