"""Files in the safetensors format: tensors and a few texts, nothing that could be executed, and nothing compressed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from reid.errors import InputError
from reid.io.atomic import write_bytes
from reid.io.json_yaml import parse_json
from reid.io.tensor_files import FORMAT

# What a checkpoint of ours keeps in this format; the state of a training needs a .pth.
TEXTS = ("config", "num_classes", "calibration", "origin")
_ALIGNED = 8


def save_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write the network of a checkpoint's content, atomically; the same content gives the same bytes.

    content: as `reid.io.checkpoint.load_checkpoint` gives it. Its "model" becomes the tensors, "format" and TEXTS the
    metadata, each a text, as JSON where it is none. What else it holds, the state of a training, is left out.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in content["model"].items()}
    metadata = {"format": str(content.get("format", FORMAT))}
    for key in TEXTS:
        if content.get(key) is not None:
            value = content[key]
            metadata[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _with_metadata(save(tensors), metadata))


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    # The library would write the texts in an order of its own at each time.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(data[8 : 8 + length])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNED)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the texts of any file in the format.

    The library checks that the tensors are as large as the file, so no header can claim more. Raises InputError for a
    file that is missing, broken or empty of tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        data = path.read_bytes()
        tensors = load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
        metadata = {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
    except PermissionError:
        raise
    except MemoryError:
        raise InputError(f"{path}: larger than the memory of this machine can hold") from None
    except Exception as error:  # of a library in another language, whatever it likes
        raise InputError(f"{path}: broken or no safetensors file ({' '.join(str(error).split())})") from None
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    return tensors, metadata


def parse_checkpoint(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The content of a checkpoint of ours, as `save_safetensors` was given it; None for a file that is none."""
    if not {"format", "config", "num_classes"} <= set(metadata):
        return None
    try:
        content: dict[str, Any] = {"model": tensors, "config": metadata["config"]}
        content["format"], content["num_classes"] = int(metadata["format"]), int(metadata["num_classes"])
        for key in ("calibration", "origin"):
            if key in metadata:
                content[key] = parse_json(metadata[key])
    except ValueError:
        return None
    return content
