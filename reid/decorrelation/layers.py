"""Which layers of a user's network can be decorrelated; the others are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from reid.errors import InputError

# How autograd's nodes begin that bend every coordinate by itself (ReLU6 is Hardtanh, SELU and CELU are Elu), so that
# distances behind them depend on the directions of the axes; and those that scale each coordinate or subtract from it.
_ACTIVATIONS = (
    *("Relu", "LeakyRelu", "Prelu", "Rrelu", "Elu", "Gelu", "Silu", "Mish", "Sigmoid", "LogSigmoid", "Tanh"),
    *("Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Softshrink", "Hardshrink", "Threshold", "Clamp"),
)
_NORMS = (
    *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "BatchNorm", "SyncBatchNorm"),
    *("NativeLayerNorm", "NativeGroupNorm"),
)


def check_layer(layer: nn.Module, role: str = "layer") -> None:
    """Check that a layer holds an ordinary weight, which may be overwritten.

    Args:
        layer: The layer.
        role: What it is called in the message.

    Raises:
        InputError: If it is not an `nn.Linear`, is wrapped, or its weight is computed from others (parametrizations,
            pruning, the old `weight_norm`), not initialized, without memory or a tensor subclass (DTensor, quantized).
    """
    if isinstance(layer, DataParallel | DistributedDataParallel):
        raise InputError(f"the {role} is wrapped in {type(layer).__name__}; pass its inner module, `.module`")
    if not isinstance(layer, nn.Linear):
        raise InputError(f"the {role} must be an nn.Linear, not {_article(layer)}; pass the linear layer alone")
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    if weight is None:
        raise InputError(
            f"the weight of the {role} is computed from other parameters (a parametrization, a normalization or "
            "pruning), so a new one could not be stored; remove that first, e.g. with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    check_weight(weight, role)


def check_weight(weight: Tensor, role: str) -> None:
    """Check that a weight is an ordinary tensor.

    Args:
        weight: The weight of a layer.
        role: What the layer is called in the message.

    Raises:
        InputError: If it is not initialized, without memory, or a tensor subclass (DTensor, quantized).
    """
    if is_lazy(weight) or weight.is_meta or not weight.numel():
        raise InputError(f"the weight of the {role} has no numbers yet; initialize the network first")
    if type(weight.data) is not Tensor:
        raise InputError(
            f"the weight of the {role} is a {type(weight.data).__name__}, which cannot be decomposed; an ordinary "
            "tensor is needed"
        )


def check_network(network: nn.Module, layer: nn.Linear) -> None:
    """Check that a layer is part of a network and that no other layer uses its weight.

    Args:
        network: The network, not wrapped.
        layer: The layer that is to be decorrelated, checked by `check_layer`.

    Raises:
        InputError: If the network is wrapped for several processes or devices, does not contain the layer, or has a
            second layer with the same weight or bias.
    """
    if isinstance(network, DataParallel | DistributedDataParallel):
        raise InputError(
            f"the network is wrapped in {type(network).__name__}, which does not notice that a layer is frozen later; "
            "pass its inner module, `.module`, and wrap that anew at the start of each stage"
        )
    if layer not in set(network.modules()):
        raise InputError("the layer is not part of the network; pass the one that is trained, e.g. model.embedding")
    own = {id(parameter) for parameter in layer.parameters()}
    shared = [
        f"{name}.{key}".lstrip(".")
        for name, module in network.named_modules()
        if module is not layer
        for key, parameter in module.named_parameters(recurse=False)
        if id(parameter) in own
    ]
    if shared:
        raise InputError(
            f"the layer shares its weight or bias with {', '.join(shared)}, which a replacement would change as well; "
            "untie them, e.g. with nn.Parameter(layer.weight.detach().clone())"
        )


def check_next_operation(network: nn.Module, layer: nn.Linear, *, with_classifier: bool) -> Callable[[], None]:
    """Check during the next forward pass with gradients what is computed from the layer's output.

    The operation is read from the graph of autograd, so that functions are seen as well as modules. What does not go
    through `network(...)`, is compiled or is recomputed (checkpointing) is not seen.

    Args:
        network: The network; its next forward pass raises an InputError if an activation follows the layer, or, with a
            classifier that is to keep its logits, a normalization.
        layer: The layer, part of the network.
        with_classifier: Whether the logits are to stay.

    Returns:
        A function that ends the check; it may be called more than once.
    """
    outputs: list[Any] = []
    inside = False

    def start(module: nn.Module, inputs: Any) -> None:
        nonlocal inside
        inside = not torch.compiler.is_compiling()
        outputs.clear()

    def remember(module: nn.Module, inputs: Any, output: Any) -> None:
        # Elsewhere nothing would clear the list, and what it holds keeps graphs in memory.
        if inside and isinstance(output, Tensor) and output.grad_fn is not None:
            outputs.append(output.grad_fn)

    def check(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal inside
        inside = False
        if not outputs:
            return
        following = set(_users(outputs, [tensor.grad_fn for tensor in _tensors(output)]))
        end()
        bent = sorted(name for name in following if name.startswith(_ACTIVATIONS))
        if bent:
            raise InputError(
                f"an activation follows the layer ({_operation(bent[0])}), behind which a replacement would change the "
                "distances; SVDNet needs the linear output, so leave the activation out"
            )
        scaled = sorted(name for name in following if name.startswith(_NORMS))
        if scaled and with_classifier:
            raise InputError(
                f"a normalization follows the layer ({_operation(scaled[0])}), so the classifier behind it cannot keep "
                "its logits; leave the argument classifier out"
            )

    handles = [
        network.register_forward_pre_hook(start),
        layer.register_forward_hook(remember),
        network.register_forward_hook(check),
    ]

    def end() -> None:
        outputs.clear()
        for handle in handles:
            handle.remove()

    return end


def _users(produced: list[Any], roots: list[Any]) -> Iterator[str]:
    """Yield the names of the nodes between `roots` and `produced` that take one of `produced` directly."""
    pending, seen = [node for node in roots if node is not None], set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [inner for inner, _ in node.next_functions if inner is not None]
        if any(inner is output for inner in inputs for output in produced):
            yield node.name()
        if not any(node is output for output in produced):
            pending += inputs


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)


def _operation(name: str) -> str:
    return name.split("Backward")[0]


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
