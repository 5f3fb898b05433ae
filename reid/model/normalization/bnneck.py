"""BNNeck: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPRW 2019."""

from __future__ import annotations

from torch import nn


class BNNeck(nn.BatchNorm1d):
    """Batch normalization of the Eigenlayer's input (B, D_in), with a scale and without a shift, as published.

    It stands before the Eigenlayer: after it, the replacement of W by US would make its statistics stale.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_parameter("bias", None)
