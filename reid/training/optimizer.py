"""A fresh optimizer for a stage, over what the stage trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from reid.errors import InputError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Solver:
    """What every stage shares.

    optimizer: "sgd", "adam" or "adamw". bias_lr_factor, bias_weight_decay: the official recipe doubles the rate of
    biases and does not decay them. norm_statistics: "running" (BatchNorm learns its statistics) or "frozen" (it keeps
    them). dtype: autocast type of the forward pass, None for float32. fused: one kernel for the optimizer's step. tf32:
    of matrix products. accumulate: batches a step. clip: largest norm of a step's gradient, 0
    for no limit. ema: decay of the average that every stage ends with, 0 for none. nonfinite: "stop" or "skip", what a
    loss that is NaN or infinite leads to.
    """

    optimizer: str = "sgd"
    momentum: float = 0.9
    amsgrad: bool = False
    weight_decay: float = 5e-4
    bias_lr_factor: float = 1.0
    bias_weight_decay: bool = True
    norm_statistics: str = "running"
    dtype: torch.dtype | None = None
    seed: int = 0
    fused: bool = False
    tf32: bool = False
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    nonfinite: str = "stop"


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Let exactly the parameters outside `names` require a gradient.

    names: beginnings of parameter names at a dot ("backbone.layer1"), or "norm" for the scale and shift of every
    normalization. Raises InputError for a name that freezes nothing.
    """
    norm_parameters = {
        f"{module_name}.{name}"
        for module_name, module in model.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    matched = set()
    for name, parameter in model.named_parameters():
        hits = {n for n in names if (n == "norm" and name in norm_parameters) or f"{name}.".startswith(f"{n}.")}
        matched |= hits
        parameter.requires_grad_(not hits)
    idle = [name for name in names if name not in matched]
    if idle:
        tops = ", ".join(dict.fromkeys(".".join(n.split(".")[:2]) for n, _ in model.named_parameters()))
        raise InputError(f"FREEZE names no parameter: {', '.join(idle)}; names begin with {tops}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"FREEZE leaves nothing to train: {', '.join(names)}")


def rate_factors(model: nn.Module, factors: Sequence[tuple[str, float]]) -> dict[str, float]:
    """What the rate of every parameter, by name, is multiplied by: 1, or the factor of the last name that begins it.

    factors: beginnings of parameter names at a dot ("neck.fc6") and factors. Raises InputError for one that begins no
    parameter.
    """
    found = {name: 1.0 for name, _ in model.named_parameters()}
    for beginning, factor in factors:
        matched = [name for name in found if f"{name}.".startswith(f"{beginning}.")]
        if not matched:
            tops = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in found))
            raise InputError(f"LR_FACTORS names no parameter: {beginning}; names begin with {tops}")
        found |= dict.fromkeys(matched, factor)
    return found


def make_optimizer(model: nn.Module, solver: Solver, lr: float, factors: Sequence[tuple[str, float]] = ()) -> Optimizer:
    """The optimizer over the parameters that require a gradient, in groups for weights and biases of each factor.

    A frozen parameter is not in it at all, so neither momentum nor weight decay can move it. Each group holds its
    `base_lr`, which the schedule multiplies. factors: as in `rate_factors`.
    """
    kinds: dict[tuple[float, str], list[nn.Parameter]] = {(1.0, "weight"): [], (1.0, "bias"): []}
    rates = rate_factors(model, factors)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # What an orthogonal weight is computed from: decay would pull it to where it began, and by Householder
            # reflections to zero, since torch rounds the signs on the diagonal, 1 or -1, down to integers.
            tied = "parametrizations" in name
            kind = "tied" if tied else "bias" if name.endswith("bias") else "weight"
            kinds.setdefault((rates[name], kind), []).append(parameter)
    decay = {"weight": solver.weight_decay, "bias": solver.weight_decay * solver.bias_weight_decay, "tied": 0.0}
    groups = [
        {
            "params": parameters,
            "base_lr": lr * factor * (solver.bias_lr_factor if kind == "bias" else 1.0),
            "weight_decay": decay[kind],
        }
        for (factor, kind), parameters in kinds.items()
        if parameters
    ]
    fused = solver.fused or None
    if solver.optimizer == "sgd":
        return SGD(groups, lr=lr, momentum=solver.momentum, fused=fused)
    make = {"adam": Adam, "adamw": AdamW}[solver.optimizer]
    return make(groups, lr=lr, amsgrad=solver.amsgrad, fused=fused)


def resume_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Take over what an optimizer has gathered (momentum, say), with the rates and decays of this one.

    state: its `state_dict`. Raises InputError where it was of another kind, or over other parameters.
    """
    wanted = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    held = [(set(group) - {"params"}, len(group["params"])) for group in optimizer.param_groups]
    if held != [(set(group) - {"params"}, len(group["params"])) for group in state["param_groups"]]:
        raise InputError(
            "the stage to go on with was trained by another optimizer, or over other parameters, than the "
            "configuration now says: change these only from one stage to the next"
        )
    optimizer.load_state_dict(dict(state))
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        group.update(settings)


def set_training_mode(model: nn.Module, norm_statistics: str) -> None:
    """Training mode; with "frozen" statistics BatchNorm normalizes by its running ones and leaves them alone."""
    model.train()
    if norm_statistics == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
