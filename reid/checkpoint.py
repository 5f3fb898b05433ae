"""Checkpoints: written beside, flushed and renamed; read without executing a pickle."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid.errors import InputError

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors and plain Python values) so that `path` holds either the old file or the whole new one.

    Raises OSError (a full disk, say) with nothing half-written left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.writing")
    try:
        # Serialised first: torch's own file writer turns a full disk or a Ctrl-C in its midst into a RuntimeError.
        data = _serialised({"format": FORMAT, **content})
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _serialised(content: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    return buffer.getbuffer()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours. Raises InputError for a missing, broken or foreign file; no code in it is executed."""
    content = load_tensors(path)
    if content.get("format") != FORMAT or "model" not in content or "config" not in content:
        raise InputError(
            f"{path}: not a checkpoint written by this project (its keys: {', '.join(map(str, list(content)[:6]))})"
        )
    return content


def load_tensors(path: Path) -> dict[str, Any]:
    """Any file of `torch.save` that holds a dict of tensors and plain values."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            raise InputError(
                f"{path}: loading it would execute code; save its state_dict alone and load that"
            ) from None
        raise InputError(f"{path}: broken or no checkpoint ({_one_line(error)})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: broken or no checkpoint ({_one_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    return content


def load_into(model: nn.Module, tensors: dict[str, Tensor], *, source: str) -> None:
    """Load a state dict strictly. Raises InputError naming the tensors that differ."""
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if found:
        raise InputError(f"{source}: a checkpoint of another network: tensors {'; '.join(found)}")
    model.load_state_dict(tensors)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
