"""Weights in forms that only a diagnosis reads: shards, folders of Hugging Face, ONNX."""

from __future__ import annotations

from pathlib import Path

from reid.errors import InputError
from reid.io.json_yaml import parse_json
from reid.io.onnx_weights import read_onnx
from reid.io.reading import read_file
from reid.io.state_dicts import StateDict, read_state_dict

# What `save_pretrained` writes, the safest form first.
FOLDER_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
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
        return read_onnx(path)
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
    shards = list(dict.fromkeys(names.values()))
    for name in shards:
        # An index could name any file of this machine.
        if Path(name).name != name:
            raise InputError(f"{path}: names the shard {name!r}, which is not a file beside it")
    return read_state_dict(*(path.parent / name for name in shards))._replace(config=None)
