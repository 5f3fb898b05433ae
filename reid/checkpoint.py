"""Checkpoints: written beside, flushed and renamed; read without executing a pickle."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.files import write_whole

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors and plain Python values) so that `path` holds either the old file or the whole new one.

    Raises OSError (a full disk, say) with nothing half-written left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Serialised first: torch's own file writer turns a full disk or a Ctrl-C in its midst into a RuntimeError.
    write_whole(path, _serialised({"format": FORMAT, **content}))


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
    kinds = {"model": dict, "config": str, "num_classes": int}
    if content.get("format") != FORMAT or not all(isinstance(content.get(k), kind) for k, kind in kinds.items()):
        raise InputError(
            f"{path}: not a checkpoint written by this project (its keys: {', '.join(map(str, list(content)[:6]))})"
        )
    return content


def load_tensors(path: Path) -> dict[Any, Any]:
    """Any file of `torch.save` that holds a dict of tensors and plain values. Raises InputError for any other."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way it likes
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path}: loading it would execute code; save its state_dict alone and load that"
            ) from None
        raise InputError(f"{path}: broken or no checkpoint ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    return content


def load_strictly(
    module: nn.Module, weights: Mapping[str, Tensor], *, network: str, source: str, unused: Collection[str] = ()
) -> None:
    """Copy `weights` into `module`; every tensor must be there in its shape, and none beside them but `unused`.

    network, source: what the error calls the two. The batch counters of BatchNorm may be missing, as they are in
    checkpoints older than them. Raises InputError naming some of the tensors that differ; nothing is copied then.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own and name not in unused]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    told = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for fault, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if told:
        raise InputError(
            f"{source}: not the weights of {network}, perhaps a checkpoint of another network; "
            f"of {len(own)} tensors {'; '.join(told)}"
        )
    module.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)
