"""The optimizer of a stage, over the parameters that the stage trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from reid.errors import InputError
from reid.io.tensor_files import is_dense

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Solver:
    """Settings that all stages share.

    Attributes:
        optimizer: "sgd", "adam" or "adamw".
        momentum: SGD momentum.
        amsgrad: Whether Adam and AdamW use AMSGrad.
        weight_decay: Weight decay; for biases see `bias_weight_decay`.
        bias_lr_factor: Factor of the learning rate of biases; the official recipe doubles it.
        bias_weight_decay: Whether biases decay; in the official recipe they do not.
        norm_statistics: "running" (BatchNorm updates its statistics) or "frozen" (it keeps them).
        dtype: Autocast type of the backbone, None for float32.
        seed: Seed of the run.
        fused: Whether the step of the optimizer is one kernel; None as the run began, see `TrainState.fused`.
        tf32: Whether matrix products may use TF32.
        accumulate: Batches per step.
        clip: Largest norm of the gradient, 0 for no limit.
        ema: Decay of the moving average that every stage ends with, 0 for none.
        nonfinite: "stop" or "skip", for a loss that is NaN or infinite.
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
    fused: bool | None = None
    tf32: bool = False
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    nonfinite: str = "stop"


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Let exactly the parameters outside `names` require a gradient.

    Args:
        model: Changed in place.
        names: Prefixes of parameter names that end at a dot ("backbone.layer1"), or "norm" for the scale and shift of
            every normalization layer.

    Raises:
        InputError: If a name freezes nothing, or nothing is left to train.
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


def lr_factors_by_name(model: nn.Module, factors: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Resolve the factors of the learning rate.

    Args:
        model: Its parameters are named.
        factors: Pairs of a prefix that ends at a dot ("neck.fc6") and a factor. Later pairs win.

    Returns:
        The factor of every parameter by name, 1 where no prefix matches.

    Raises:
        InputError: If a prefix matches no parameter.
    """
    found = {name: 1.0 for name, _ in model.named_parameters()}
    for prefix, factor in factors:
        matched = [name for name in found if f"{name}.".startswith(f"{prefix}.")]
        if not matched:
            tops = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in found))
            raise InputError(f"LR_FACTORS names no parameter: {prefix}; names begin with {tops}")
        found |= dict.fromkeys(matched, factor)
    return found


def make_optimizer(model: nn.Module, solver: Solver, lr: float, factors: Sequence[tuple[str, float]] = ()) -> Optimizer:
    """Make a fresh optimizer over the parameters that require a gradient.

    A frozen parameter is not in it at all, so neither momentum nor weight decay can move it.

    Args:
        model: Its parameters are trained.
        solver: Settings; the step is one kernel unless `fused` is False.
        lr: Base learning rate.
        factors: As in `lr_factors_by_name`.

    Returns:
        The optimizer, with a group for weights and one for biases of each factor. Each group holds its `base_lr`, which
        the schedule multiplies.
    """
    kinds: dict[tuple[float, str], list[nn.Parameter]] = {(1.0, "weight"): [], (1.0, "bias"): []}
    lr_factors = lr_factors_by_name(model, factors)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # An orthogonal weight is computed from these. Decay would pull it back to its start, and with Householder
            # reflections to zero, since torch rounds the signs on the diagonal, 1 or -1, to integers. The two parts of
            # weight normalization, g and v, decay like a weight.
            tied = "parametrizations" in name and not name.endswith((".original0", ".original1"))
            kind = "tied" if tied else "bias" if name.endswith("bias") else "weight"
            kinds.setdefault((lr_factors[name], kind), []).append(parameter)
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
    fused = None if solver.fused is False else True  # False would forbid one kernel per operation, too
    if solver.optimizer == "sgd":
        return SGD(groups, lr=lr, momentum=solver.momentum, fused=fused)
    make = {"adam": Adam, "adamw": AdamW}[solver.optimizer]
    return make(groups, lr=lr, amsgrad=solver.amsgrad, fused=fused)


def resume_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the buffers of an optimizer, such as momentum, and keep the learning rates and decays of this one.

    Args:
        optimizer: Changed in place.
        state: A `state_dict`.

    Raises:
        InputError: If the state belongs to a different kind of optimizer or to different parameters, or if its buffers
            do not fit them.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    held = [(set(group) - {"params"}, len(group["params"])) for group in optimizer.param_groups]
    if held != [(set(group) - {"params"}, len(group["params"])) for group in state["param_groups"]]:
        raise InputError(
            "the unfinished stage was trained with a different optimizer or different parameters than the current "
            "configuration; change these only between two stages"
        )
    _check_buffers(optimizer, state)
    groups = [
        {**values, "params": group["params"]} for values, group in zip(settings, state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _check_buffers(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Compare the buffers with the parameters, which PyTorch does at the first step only, or not at all."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = {number: parameter.shape for number, parameter in zip(numbers, parameters, strict=True)}
    expected = _buffer_names(optimizer)
    for number, buffers in state["state"].items():
        fits = number in shapes and set(buffers) == expected
        if not fits or any(not _is_buffer(name, value, shapes[number]) for name, value in buffers.items()):
            raise InputError(
                f"the optimizer in the checkpoint does not fit its parameters (the buffers of parameter {number}); "
                "the checkpoint was changed or belongs to a different run"
            )


def _buffer_names(optimizer: Optimizer) -> set[str]:
    if isinstance(optimizer, SGD):
        return {"momentum_buffer"}
    amsgrad = {"max_exp_avg_sq"} if optimizer.defaults["amsgrad"] else set()
    return {"step", "exp_avg", "exp_avg_sq"} | amsgrad


def _is_buffer(name: str, value: Any, shape: torch.Size) -> bool:
    if name == "step":
        return is_dense(value) and value.numel() == 1 and bool((value >= 0).all())
    if name == "momentum_buffer" and value is None:  # without momentum
        return True
    return is_dense(value) and value.shape == shape and value.is_floating_point()


def set_training_mode(model: nn.Module, norm_statistics: str) -> None:
    """Set training mode.

    Args:
        model: Changed in place.
        norm_statistics: With "frozen", BatchNorm normalizes by its running statistics and does not update them.
    """
    model.train()
    if norm_statistics == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
