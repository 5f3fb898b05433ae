"""Baselines to RRI: an Eigenlayer whose weight vectors stay orthogonal at every optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from reid.errors import unknown_name

PARAMETRIZATIONS = ("none", "orthogonal", "scaled_orthogonal")
ORTHOGONAL_MAPS = ("matrix_exp", "cayley", "householder")


def parametrize_weight(layer: nn.Linear, name: str, orthogonal_map: str = "matrix_exp") -> None:
    """Constrain the weight vectors of a linear layer to be orthogonal, in place.

    W starts at the orthogonal matrix that torch computes from the initial weights, a scale at their lengths.

    Args:
        layer: Layer with weight (K, D_in), K <= D_in.
        name: "none"; "orthogonal" for WᵀW = I by `torch.nn.utils.parametrizations.orthogonal`; or "scaled_orthogonal"
            for W = Q diag(s) with QᵀQ = I and a learnable s, the form that decorrelation by US gives W.
        orthogonal_map: Map of `torch.nn.utils.parametrizations.orthogonal`, one of `ORTHOGONAL_MAPS`.

    Raises:
        InputError: If the name or map is unknown.
    """
    if name not in PARAMETRIZATIONS:
        raise unknown_name("parametrization of the Eigenlayer", name, PARAMETRIZATIONS)
    if orthogonal_map not in ORTHOGONAL_MAPS:
        raise unknown_name("map of the Eigenlayer's parametrization", orthogonal_map, ORTHOGONAL_MAPS)
    if name == "none":
        return
    lengths = layer.weight.detach().norm(dim=1)
    parametrizations.orthogonal(layer, "weight", orthogonal_map=orthogonal_map)
    if name == "scaled_orthogonal":
        scaling = _Scaling(lengths)
        parametrize.register_parametrization(layer, "weight", scaling)
        with torch.no_grad():  # registering has divided by the lengths of Q's columns, which are 1
            scaling.scale.copy_(lengths)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Compute the state dict that the model would have without parametrizations.

    Args:
        model: Module with or without parametrizations; it is not changed.

    Returns:
        The state dict, with every parametrized tensor under its own name instead of the tensors it is computed from.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if ".parametrizations." not in f".{name}"}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for tensor in module.parametrizations:
                state[f"{name}.{tensor}".lstrip(".")] = getattr(module, tensor).detach()
    return state


class _Scaling(nn.Module):
    """Learnable scale per row, (K, D_in) -> (K, D_in)."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.clone())

    def forward(self, rows: Tensor) -> Tensor:
        return self.scale[:, None] * rows

    def right_inverse(self, rows: Tensor) -> Tensor:
        return rows / rows.norm(dim=1, keepdim=True)
