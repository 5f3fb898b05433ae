"""The Eigenlayer of Sun et al. 2017: the linear layer before the classifier whose weight vectors are decorrelated."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from reid.errors import InputError, check_count
from reid.model.parametrization import parametrize_weight

logger = logging.getLogger(__name__)

_LARGE = 2**26  # number of weights above which a warning is logged


class Eigenlayer(nn.Linear):
    """Linear layer f = Wᵀh, section 3.1 of Sun et al. 2017: (B, D_in) -> (B, K).

    `weight` is (K, D_in), the paper's W transposed; `vectors` gives W itself. A bias and a ReLU are ablations of the
    paper.

    Args:
        d_in: Input width D_in.
        k: Number of weight vectors K; 0 for min(1024, D_in).
        bias: Add a learnable bias, initially zero.
        relu: Apply a ReLU to the output.
        init_std: Standard deviation of the normal distribution that the initial weights are sampled from.

    Raises:
        InputError: If K > D_in.
    """

    def __init__(self, d_in: int, k: int = 0, bias: bool = False, relu: bool = False, init_std: float = 0.01) -> None:
        super().__init__(d_in, vector_count(d_in, k), bias=bias)
        self.relu = relu
        nn.init.normal_(self.weight, std=init_std)
        if bias:
            nn.init.zeros_(self.bias)

    @property
    def vectors(self) -> Tensor:
        """W of the paper, (D_in, K), whose columns are the weight vectors: a view of `weight`."""
        return self.weight.T

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input, as in a converted network without a linear layer before its classifier."""
        square, shifted = self.in_features == self.out_features, self.bias is not None and bool(self.bias.any())
        return (
            square
            and not shifted
            and not self.relu
            and torch.equal(self.weight, torch.eye(len(self.weight)).to(self.weight))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Project features onto the weight vectors.

        Args:
            features: (B, D_in) float32.

        Returns:
            (B, K) float32.
        """
        output = super().forward(features)
        return output.relu() if self.relu else output

    def extra_repr(self) -> str:
        """Describe the layer.

        Returns:
            The settings shown by `repr`.
        """
        return f"{super().extra_repr()}, relu={self.relu}"


def vector_count(d_in: int, k: int) -> int:
    """Resolve the number of weight vectors.

    Args:
        d_in: Input width D_in.
        k: Requested number; 0 for min(1024, D_in).

    Returns:
        K.

    Raises:
        InputError: If `k` is negative or above `d_in`, or either is not a whole number.
    """
    check_count("the Eigenlayer's input width D_in", d_in)
    check_count("the Eigenlayer's K, or 0 for the default,", k, minimum=0)
    if k > d_in:
        raise InputError(
            f"the Eigenlayer's K = {k} is more than its input width D_in = {d_in}: more than D_in vectors in D_in "
            f"dimensions cannot be orthogonal (US has at most D_in non-zero columns); give K <= {d_in}, or 0 for the "
            "default"
        )
    return k or min(1024, d_in)


def last_layer_vector_count(d_in: int, k: int, num_classes: int) -> int:
    """Resolve the number of weight vectors of an Eigenlayer that is the classifier: one per class.

    Args:
        d_in: Input width D_in.
        k: Requested number; 0 for `num_classes`.
        num_classes: Number of classes.

    Returns:
        K, which is `num_classes`.

    Raises:
        InputError: If `k` is neither 0 nor `num_classes`, or there are more classes than input dimensions.
    """
    if k not in (0, num_classes):
        raise InputError(f"an Eigenlayer that is the last layer has one vector per class: K = {num_classes}, not {k}")
    if num_classes > d_in:
        raise InputError(
            f"an Eigenlayer that is the last layer has one vector per class, and {num_classes} vectors in "
            f"D_in = {d_in} dimensions cannot be orthogonal; use fewer classes or a wider backbone"
        )
    return num_classes


def build_eigenlayer(
    d_in: int,
    k: int = 0,
    *,
    bias: bool = False,
    relu: bool = False,
    init_std: float = 0.01,
    parametrization: str = "none",
    orthogonal_map: str = "matrix_exp",
) -> Eigenlayer:
    """Build an Eigenlayer, optionally with a parametrized weight.

    Logs a warning about its memory if the layer is large.

    Args:
        d_in: Input width D_in.
        k: Number of weight vectors K; 0 for min(1024, D_in).
        bias: Add a learnable bias.
        relu: Apply a ReLU to the output.
        init_std: Standard deviation of the initial weights.
        parametrization: Constraint on the weight, see `parametrize_weight`.
        orthogonal_map: How the constraint is computed, see `parametrize_weight`.

    Returns:
        Eigenlayer (B, d_in) -> (B, k), on the CPU.

    Raises:
        InputError: If K > D_in or for an unknown name.
    """
    count = vector_count(d_in, k)
    if d_in * count > _LARGE:
        logger.warning(
            "the Eigenlayer is %d x %d: %.2f GB, twice that for its float64 decomposition, and as much again for every "
            "state of the optimizer; fewer clusters or a smaller K reduce it",
            d_in,
            count,
            d_in * count * 4 / 1e9,
        )
    layer = Eigenlayer(d_in, k, bias=bias, relu=relu, init_std=init_std)
    parametrize_weight(layer, parametrization, orthogonal_map)
    return layer
