"""Weights in forms that only a diagnosis reads: shards, folders of Hugging Face, ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.errors import InputError, install_command
from reid.io.json_yaml import parse_json
from reid.io.reading import read_file
from reid.io.state_dicts import StateDict, read_state_dict

# What `save_pretrained` writes, the safest form first.
FOLDER_FILES = (
    *("model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def read_weights(path: Path) -> tuple[StateDict, dict[str, int]]:
    """Read weights from any supported file or folder, without executing code in it.

    Args:
        path: What `read_state_dict` reads; the index of shards, `*.index.json`; a folder with one of `FOLDER_FILES`; or
            an ONNX file, with data beside it where it has some.

    Returns:
        The tensors with configuration and notes, and the groups of convolutions where the file tells them.

    Raises:
        InputError: If the file is missing, corrupt, requires executing code, or holds no weights.
    """
    if path.is_dir():
        found = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        if found is None:
            raise InputError(f"{path}: a folder without weights; expected one of {', '.join(FOLDER_FILES)}")
        return read_weights(found)
    if path.name.endswith(".index.json"):
        return _read_shards(path), {}
    if path.suffix == ".onnx":
        return _read_onnx(path)
    return read_state_dict(path), {}


def _read_shards(path: Path) -> StateDict:
    try:
        content = parse_json(read_file(path).decode("utf-8", errors="replace"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: not an index of shards: {error}") from None
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{path}: not an index of shards, which has a weight_map of tensors to files")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(names.values()):
        # An index could name any file of this machine.
        if Path(name).name != name:
            raise InputError(f"{path}: names the shard {name!r}, which is not a file beside it")
        tensors |= read_state_dict(path.parent / name).tensors
    return StateDict(tensors, None, ())


def _read_onnx(path: Path) -> tuple[StateDict, dict[str, int]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise InputError(f"ONNX files require the extra `export`: {install_command('export')}") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf raises errors of its own
        raise InputError(f"{path}: corrupt or not an ONNX file ({' '.join(str(error).split())[:200]})") from None
    values: dict[str, Any] = {initializer.name: initializer for initializer in graph.initializer}
    tensors: dict[str, Tensor] = {}
    groups: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in ("Gemm", "MatMul", "Conv") or len(node.input) < 2 or node.input[1] not in values:
            continue
        settings = {attribute.name: attribute.i for attribute in node.attribute}
        try:
            # A copy, since arrays of ONNX are read-only.
            weight = torch.tensor(numpy_helper.to_array(values[node.input[1]]))
        except Exception as error:  # sizes that contradict the data, types that PyTorch lacks
            raise InputError(f"{path}: {node.input[1]}: {' '.join(str(error).split())[:200]}") from None
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not settings.get("transB", 0)):
            if weight.ndim != 2:
                continue  # a batch of matrices is no layer
            weight = weight.T
        name = node.input[1] if "weight" in node.input[1].rpartition(".")[2] else f"{node.input[1]}.weight"
        tensors[name] = weight
        groups[name] = int(settings.get("group", 1))
    if not tensors:
        raise InputError(f"{path}: holds no Gemm, MatMul or Conv with a weight of its own")
    return StateDict(tensors, None, ()), groups
