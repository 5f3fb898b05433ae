"""Files in the safetensors format: tensors and a few strings, uncompressed, with nothing that could be executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from reid.errors import InputError
from reid.io.atomic import write_bytes
from reid.io.digest import DIGEST_LENGTH, compute_digest
from reid.io.json_yaml import parse_json
from reid.io.reading import describe_text, names_file
from reid.io.tensor_files import FORMAT

# The parts of a checkpoint that this format keeps as strings; the state of a training needs a .pth file.
STRING_KEYS = ("config", "num_classes", "calibration", "origin", "timm")
_ALIGNMENT = 8

# The digest comes first in the header, so that it can be checked before anything is parsed. It is that of the file with
# zeros in its place.
_DIGEST_KEY = "sha256"
_ZEROS = "0" * DIGEST_LENGTH
_START = f'{{"__metadata__":{{"{_DIGEST_KEY}":"'.encode()
_PLACE = slice(8 + len(_START), 8 + len(_START) + DIGEST_LENGTH)


def save_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write the network of a checkpoint atomically; equal contents give equal bytes.

    Args:
        path: File to create or replace; its folder is created.
        content: Content of a checkpoint. Its "model" becomes the tensors; "format" and `STRING_KEYS` become the
            metadata, as JSON where they are not strings, with a digest of the file. Everything else, the state of the
            training, is dropped.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in content["model"].items()}
    metadata = {_DIGEST_KEY: _ZEROS, "format": str(content.get("format", FORMAT))}
    for key in STRING_KEYS:
        if content.get(key) is not None:
            value = content[key]
            metadata[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _add_metadata(save(tensors), metadata)
    data[_PLACE] = compute_digest(data).encode()
    write_bytes(path, memoryview(data))


def _add_metadata(data: bytes, metadata: dict[str, str]) -> bytearray:
    # The library would write the strings in a different order each time.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(data[8 : 8 + length])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return bytearray().join((len(header).to_bytes(8, "little"), header, memoryview(data)[8 + length :]))


def _matches_digest(data: bytes) -> bool:
    content = memoryview(data)
    digest = compute_digest(content[: _PLACE.start], _ZEROS.encode(), content[_PLACE.stop :])
    return digest.encode() == data[_PLACE]


@names_file
def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load any safetensors file.

    The library checks that the tensors are as large as the file, so a header cannot claim more.

    Args:
        path: Safetensors file, possibly from an untrusted source.

    Returns:
        The tensors, on the CPU, and the metadata.

    Raises:
        InputError: If the file is missing or corrupt, or holds no tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        data = path.read_bytes()
        if data.startswith(_START, 8) and not _matches_digest(data):
            raise InputError(f"{path}: corrupt: it does not match its digest (metadata {_DIGEST_KEY!r})")
        tensors = load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
        metadata = {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
        # Another program that saves changed tensors may keep the metadata, in another order.
        if metadata.pop(_DIGEST_KEY, None) is not None and not data.startswith(_START, 8):
            raise InputError(f"{path}: corrupt, or changed without its digest; save it without the key {_DIGEST_KEY!r}")
    except (OSError, InputError):
        raise
    except MemoryError:
        raise InputError(f"{path}: larger than the memory of this machine can hold") from None
    except Exception as error:  # the library, written in another language, may raise anything
        if text_file := describe_text(path.read_bytes()[:512]):
            raise InputError(f"{path}: {text_file}") from None
        raise InputError(f"{path}: corrupt or not a safetensors file ({' '.join(str(error).split())})") from None
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    return tensors, metadata


def parse_checkpoint(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Rebuild the content of a checkpoint from what `load_safetensors` returned.

    Args:
        tensors: Name to tensor.
        metadata: String by key, from the header of the file.

    Returns:
        The content as `save_safetensors` received it, or None for a file of another program.
    """
    if not {"format", "config", "num_classes"} <= set(metadata):
        return None
    try:
        content: dict[str, Any] = {"model": tensors, "config": metadata["config"]}
        content["format"], content["num_classes"] = int(metadata["format"]), int(metadata["num_classes"])
        for key in ("calibration", "origin"):
            if key in metadata:
                content[key] = parse_json(metadata[key])
        if "timm" in metadata:
            content["timm"] = metadata["timm"]
    except ValueError:
        return None
    return content
