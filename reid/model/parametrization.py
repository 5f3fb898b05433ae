"""Rivals of SVDNet: an Eigenlayer whose weight vectors cannot but be orthogonal, whatever the optimizer does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from reid.errors import unknown_name
from reid.model.eigenlayer import Eigenlayer

PARAMETRIZATIONS = ("none", "orthogonal", "scaled_orthogonal")
MAPS = ("matrix_exp", "cayley", "householder")


def parametrize_eigenlayer(layer: Eigenlayer, name: str, map: str = "matrix_exp") -> None:
    """Tie the weight of an Eigenlayer, in place.

    name: "none"; "orthogonal", WᵀW = I, by `torch.nn.utils.parametrizations.orthogonal` with one of MAPS; or
    "scaled_orthogonal", W = Q diag(s) with QᵀQ = I and a learnable s, which is what decorrelation by US makes of W.
    W starts at the orthogonal matrix that torch takes from the first weights, s at their lengths. Raises InputError for
    an unknown name.
    """
    if name not in PARAMETRIZATIONS:
        raise unknown_name("parametrization of the Eigenlayer", name, PARAMETRIZATIONS)
    if map not in MAPS:
        raise unknown_name("map of the Eigenlayer's parametrization", map, MAPS)
    if name == "none":
        return
    lengths = layer.weight.detach().norm(dim=1)
    parametrizations.orthogonal(layer, "weight", orthogonal_map=map)
    if name == "scaled_orthogonal":
        scaling = _Scaling(lengths)
        parametrize.register_parametrization(layer, "weight", scaling)
        with torch.no_grad():  # registering has divided by the lengths of Q, which are 1
            scaling.scale.copy_(lengths)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tied weight computed, under its own name, in place of what it is computed from."""
    state = {name: tensor for name, tensor in model.state_dict().items() if ".parametrizations." not in f".{name}"}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for tensor in module.parametrizations:
                state[f"{name}.{tensor}".lstrip(".")] = getattr(module, tensor).detach()
    return state


class _Scaling(nn.Module):
    """Rows times a learnable number each, (K, D_in) -> (K, D_in)."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.clone())

    def forward(self, rows: Tensor) -> Tensor:
        return self.scale[:, None] * rows

    def right_inverse(self, rows: Tensor) -> Tensor:
        return rows / rows.norm(dim=1, keepdim=True)
