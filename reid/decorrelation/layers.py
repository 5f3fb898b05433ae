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
    *("Relu", "LeakyRelu", "Prelu", "Rrelu", "Elu", "Gelu", "Glu", "Silu", "Mish", "Sigmoid", "LogSigmoid", "Tanh"),
    *("Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Softshrink", "Hardshrink", "Threshold", "Clamp"),
    *("Maximum", "Minimum"),
)
_NORMS = (
    *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "BatchNorm", "SyncBatchNorm"),
    *("NativeLayerNorm", "NativeGroupNorm"),
)
# The nodes after which the coordinates are still those of the layer: the same numbers in another dtype or place, and
# what is done to every coordinate by itself, but for activations. Dropout is Mul on a CPU.
_VIEWS = {
    *("ToCopy", "Clone", "Alias", "View", "UnsafeView", "ReshapeAlias", "AsStrided", "Squeeze", "Unsqueeze"),
    *("Transpose", "T", "Permute"),
}
_KEPT = _VIEWS | {
    *("Mul", "Div", "Add", "Sub", "Rsub", "Neg", "NativeDropout", "FusedDropout", "MaskedFill"),
    *("Expand", "Repeat", "Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Index", "IndexSelect"),
    *("Cat", "Stack", "ConstantPadNd"),
}


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


def check_network(network: nn.Module, layer: nn.Linear, classifier: nn.Linear | None = None) -> None:
    """Check that a layer is part of a network and that no other layer uses its weight, nor that of the classifier.

    Args:
        network: The network, not wrapped.
        layer: The layer that is to be decorrelated, checked by `check_layer`.
        classifier: A layer whose weight is to change with it; it need not be part of the network.

    Raises:
        InputError: If the network is wrapped for several processes or devices, does not contain the layer, or has a
            second layer with the same weight or bias, as the same object or in the same memory.
    """
    if isinstance(network, DataParallel | DistributedDataParallel):
        raise InputError(
            f"the network is wrapped in {type(network).__name__}, which does not notice that a layer is frozen later; "
            "pass its inner module, `.module`, and wrap that anew at the start of each stage"
        )
    if layer not in set(network.modules()):
        raise InputError("the layer is not part of the network; pass the one that is trained, e.g. model.embedding")
    for role, own in (("layer", layer), ("classifier", classifier)):
        shared = _sharing(network, own) if own is not None else []
        if shared:
            raise InputError(
                f"the {role} shares its weight or bias with {', '.join(shared)}, which a replacement would change as "
                "well; untie them, e.g. with nn.Parameter(layer.weight.detach().clone())"
            )


def _sharing(network: nn.Module, layer: nn.Linear) -> list[str]:
    """Names of the parameters of other modules that begin in the memory of parameters of the layer."""
    own = {parameter.data_ptr() for parameter in layer.parameters()} - {0}
    return [
        f"{name}.{key}".lstrip(".")
        for name, module in network.named_modules()
        if module is not layer
        for key, parameter in module.named_parameters(recurse=False)
        if not is_lazy(parameter) and parameter.data_ptr() in own
    ]


def check_next_operation(network: nn.Module, layer: nn.Linear, *, with_classifier: bool) -> Callable[[], None]:
    """Check during the next forward pass with gradients what is computed from the layer's output.

    The operations are read from the graph of autograd, so that functions are seen as well as modules, and followed as
    long as each coordinate stays by itself: through dropout, casts, views, arithmetic and normalizations, but not
    through a further layer. What does not go through `network(...)`, is compiled or is recomputed (checkpointing) is
    not seen.

    Args:
        network: The network; its next forward pass raises an InputError if an activation follows the layer and the
            network does not also return the layer's output, as embeddings to be compared; or, with a classifier that
            is to keep its logits, if a normalization follows.
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
        roots = [tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None]
        following, returned = _following(outputs, roots), _returned(outputs, roots)
        end()
        _check_operations(following, may_bend=returned, may_scale=not with_classifier)

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


def _check_operations(names: set[str], *, may_bend: bool, may_scale: bool) -> None:
    hidden = sorted(name for name in names if name.startswith("CopySlices"))
    if hidden and not may_bend:
        raise InputError(
            "a part of the layer's output is changed in place, which hides whether an activation follows; write that "
            "out of place, e.g. with torch.where or torch.cat"
        )
    bent = sorted(name for name in names if name.startswith(_ACTIVATIONS))
    if bent and not may_bend:
        raise InputError(
            f"an activation follows the layer ({bent[0]}), after which a replacement would change the distances; "
            "leave it out, or, if you compare the output of the layer itself, let the network return that as well"
        )
    scaled = sorted(name for name in names if name.startswith(_NORMS))
    if scaled and not may_scale:
        raise InputError(
            f"a normalization follows the layer ({scaled[0]}), so the classifier after it cannot keep its logits; "
            "leave the argument classifier out"
        )


def _following(produced: list[Any], roots: list[Any]) -> set[str]:
    """Name the operations on the way from `produced` to `roots` whose input has the coordinates of `produced`."""
    users: dict[Any, list[Any]] = {}
    pending, seen = list(roots), set(produced)
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            inputs = [inner for inner, _ in node.next_functions if inner is not None]
            for inner in inputs:
                users.setdefault(inner, []).append(node)
            pending += inputs
    names: set[str] = set()
    pending, seen = list(produced), set()
    while pending:
        for user in users.get(pending.pop(), ()):
            if user not in seen:
                seen.add(user)
                names.add(_operation(user))
                if _operation(user) in _KEPT or _operation(user).startswith(_NORMS):
                    pending.append(user)
    return names


def _returned(produced: list[Any], roots: list[Any]) -> bool:
    """Whether one of `roots` is one of `produced`, at most in another dtype or shape."""
    for node in roots:
        while node not in produced and _operation(node) in _VIEWS and node.next_functions[0][0] is not None:
            node = node.next_functions[0][0]
        if node in produced:
            return True
    return False


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)


def _operation(node: Any) -> str:
    return node.name().rpartition("::")[2].split("Backward")[0]


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
