"""The Eigenlayer of Sun et al. 2017: the linear layer before the classifier whose weight vectors are decorrelated."""

from __future__ import annotations

from torch import Tensor, nn

from reid.errors import InputError


class Eigenlayer(nn.Linear):
    """f = Wᵀh, section 3.1 of Sun et al. 2017: (B, D_in) -> (B, K), by default without bias and without ReLU.

    `weight` is (K, D_in), the paper's W transposed; `vectors` gives W itself. `bias` and `relu` are ablations of the
    paper. The weights are drawn from N(0, init_std). k = 0 stands for min(1024, D_in).
    Raises InputError where K > D_in.
    """

    def __init__(self, d_in: int, k: int = 0, bias: bool = False, relu: bool = False, init_std: float = 0.01) -> None:
        super().__init__(d_in, vector_count(d_in, k), bias=bias)
        self.relu = relu
        nn.init.normal_(self.weight, std=init_std)
        if bias:
            nn.init.zeros_(self.bias)

    @property
    def vectors(self) -> Tensor:
        """W of the paper, (D_in, K), its columns the weight vectors: a view of `weight`."""
        return self.weight.T

    def forward(self, features: Tensor) -> Tensor:
        output = super().forward(features)
        return output.relu() if self.relu else output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


def vector_count(d_in: int, k: int) -> int:
    """K, the number of weight vectors: `k`, or min(1024, d_in) where k is 0. Raises InputError outside [0, d_in]."""
    if k < 0:
        raise InputError(f"the Eigenlayer cannot have K = {k} weight vectors; give 1 to {d_in}, or 0 for the default")
    if k > d_in:
        raise InputError(
            f"the Eigenlayer's K = {k} is more than its input width D_in = {d_in}: more than D_in vectors in D_in "
            f"dimensions cannot be orthogonal (US has at most D_in non-zero columns); give K <= {d_in}, or 0 for the "
            "default"
        )
    return k or min(1024, d_in)
