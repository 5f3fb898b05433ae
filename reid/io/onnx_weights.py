"""Weights of linear and convolution layers from the graph of an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.errors import InputError, install_command
from reid.io.state_dicts import StateDict

# Layers whose weights are of another kind, or computed in a way that is not followed.
_UNREAD = (
    *("ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "QGemm", "QLinearConv", "QLinearMatMul", "ConvInteger"),
    *("MatMulInteger", "MatMulNBits", "FusedConv", "FusedMatMul", "FusedGemm"),
)


@dataclass(frozen=True)
class _Origin:
    """What a constant value comes from: a stored tensor, transposed by each of `orders`, or an operation in the way."""

    source: str
    stored: Any
    orders: tuple[tuple[int, ...], ...] = ()
    obstacle: str = ""


def read_onnx(path: Path) -> tuple[StateDict, dict[str, int]]:
    """Read the weights of the nodes Gemm, MatMul and Conv, on either side of a product.

    A weight is an initializer or a Constant, also behind Identity, Transpose, or a Cast from a floating type. What else
    is computed from constants, such as the weight behind a DequantizeLinear, is named in the notes.

    Args:
        path: The file, with data beside it where it has some.

    Returns:
        The weights, outputs first, by the names of their initializers, with ".weight" unless they have it; and the
        groups of each.

    Raises:
        InputError: If the file is missing, corrupt, or holds no weights, or the extra `export` is not installed.
    """
    graph = _load(path)
    origins = _origins(graph)
    tensors: dict[str, Tensor] = {}
    groups: dict[str, int] = {}
    unread: list[str] = []
    for node in graph.node:
        sides = [side for side in (1, 0) if side < len(node.input) and node.input[side] in origins]
        if node.op_type in _UNREAD and any(name in origins for name in node.input):
            unread.append(f"{node.name or node.output[0]} ({node.op_type})")
        if node.op_type not in ("Gemm", "MatMul", "Conv") or not sides or (node.op_type == "Conv" and sides[0] == 0):
            continue
        origin = origins[node.input[sides[0]]]
        tensor = _read(origin, path)
        weight = _outputs_first(node, sides[0], tensor)
        if weight is None:
            shape = "" if tensor is None else f"{tensor.dtype}, {tuple(tensor.shape)}".removeprefix("torch.")
            unread.append(f"{origin.source} ({origin.obstacle or shape})")
            continue
        name = origin.source if "weight" in origin.source.rpartition(".")[2] else f"{origin.source}.weight"
        tensors[name], groups[name] = weight, int(_settings(node).get("group", 1))
    note = f"left out, as a diagnosis cannot read them: {', '.join(dict.fromkeys(unread))}"
    if not tensors:
        raise InputError(
            f"{path}: holds no Gemm, MatMul or Conv with a weight of its own{f'; {note}' if unread else ''}"
        )
    return StateDict(tensors, None, (note,) if unread else ()), groups


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError(f"ONNX files require the extra `export`: {install_command('export')}") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return onnx.load(path).graph
    except Exception as error:  # protobuf raises errors of its own
        raise InputError(f"{path}: corrupt or not an ONNX file ({' '.join(str(error).split())[:200]})") from None


def _origins(graph: Any) -> dict[str, _Origin]:
    """Where the values come from in which no input of the graph has a part; nodes are in the order of computation."""
    found = {initializer.name: _Origin(initializer.name, initializer) for initializer in graph.initializer}
    for node in graph.node:
        inputs = [found.get(name) for name in node.input if name]
        if None in inputs:
            continue
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        for output in node.output:
            origin = inputs[0] if inputs and inputs[0] else _Origin(output, values[0] if values else None)
            if node.op_type == "Transpose":
                order = next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), ())
                origin = replace(origin, orders=(*origin.orders, order))
            elif node.op_type not in ("Constant", "Identity", "Cast") or origin.stored is None:
                origin = replace(origin, stored=None, obstacle=origin.obstacle or node.op_type)
            found[output] = origin
    return found


def _read(origin: _Origin, path: Path) -> Tensor | None:
    """The tensor, None if there is an obstacle."""
    if origin.stored is None:
        return None
    tensor = _tensor(origin.stored, origin.source, path)
    for order in origin.orders:
        tensor = tensor.permute(order or tuple(range(tensor.ndim))[::-1])
    return tensor


def _tensor(stored: Any, name: str, path: Path) -> Tensor:
    from onnx import numpy_helper

    try:
        array = numpy_helper.to_array(stored)
        # bfloat16 and smaller formats are no types of NumPy. A copy, since arrays of ONNX are read-only.
        return torch.tensor(array if array.dtype.kind in "biufc" else array.astype("float32"))
    except Exception as error:  # sizes that contradict the data, types that PyTorch lacks
        raise InputError(f"{path}: {name}: {' '.join(str(error).split())[:200]}") from None


def _outputs_first(node: Any, side: int, tensor: Tensor | None) -> Tensor | None:
    """The weight with its outputs in the first dimension; None for what is no weight of a layer (stacked matrices)."""
    if tensor is None or not tensor.is_floating_point():
        return None
    if node.op_type == "Conv":
        return tensor if tensor.ndim > 2 else None
    if tensor.ndim != 2:
        return None
    # As stored, the right factor of a product has its outputs last, the left one first.
    transposed = bool(_settings(node).get("transB" if side == 1 else "transA", 0))
    return tensor if transposed == (side == 1) else tensor.T


def _settings(node: Any) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}
