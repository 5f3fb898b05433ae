"""Checkpoints: written atomically, verified by a digest, and read without executing pickles."""

from __future__ import annotations

import errno
import os
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid.errors import InputError, no_interrupt
from reid.io.atomic import link_or_copy, make_folder
from reid.io.reading import describe_text, names_file
from reid.io.safetensors_files import load_safetensors, parse_checkpoint
from reid.io.sealing import check_seal, write_sealed
from reid.io.tensor_files import FORMAT as FORMAT
from reid.io.tensor_files import SAFE_GLOBALS, check_tensors, copy_archive, is_dense, to_bytes
from reid.io.tensor_pickles import check_pickles


class ForeignCheckpoint(InputError):
    """An intact file of tensors that another program wrote."""


def save_checkpoint(path: Path, content: dict[str, Any], *, previous: Path | None = None) -> None:
    """Write a checkpoint atomically; Ctrl-C waits for the end of it.

    If `previous` is given, `path` or `previous` is a complete checkpoint at any moment after the first call. An
    OSError, such as that of a full disk, leaves no partial file behind.

    Args:
        path: File to create or replace; its folder is created.
        content: Tensors and plain Python values; the key "format" is added.
        previous: File to which an existing checkpoint is moved first.
    """
    with no_interrupt():
        make_folder(path.parent)
        data = to_bytes({"format": FORMAT, **content})
        if previous is not None and path.exists():
            link_or_copy(path, previous)
        write_sealed(path, data)


def load_latest(path: Path, previous: Path, warn: Callable[[str], object] = print) -> dict[str, Any] | None:
    """Load a checkpoint, or the previous one if it is corrupt.

    Args:
        path: The latest checkpoint; a corrupt one is replaced by the previous one.
        previous: The checkpoint before it.
        warn: Called with one line if the latest checkpoint is corrupt.

    Returns:
        The content, or None if there is neither file.

    Raises:
        InputError: If no checkpoint can be read.
    """
    if not path.exists() and not previous.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        if not previous.exists():
            raise
        content = load_checkpoint(previous)
        warn(f"{error}; resuming from the previous checkpoint")
        os.replace(previous, path)
        return content


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint of this project.

    Args:
        path: A `.pth` or `.safetensors` file.

    Returns:
        The content, with at least the keys "format", "model" (name to tensor), "config" and "num_classes".

    Raises:
        InputError: If the file is missing or corrupt.
        ForeignCheckpoint: If another program wrote it.
    """
    content: dict[Any, Any]
    if path.suffix == ".safetensors":
        tensors, metadata = load_safetensors(path)
        content = parse_checkpoint(tensors, metadata) or {**metadata, **tensors}
    else:
        content = load_tensors(path)
    kinds = {"format": int, "model": dict, "config": str, "num_classes": int}
    if not all(isinstance(content.get(key), kind) for key, kind in kinds.items()) or content["format"] != FORMAT:
        raise ForeignCheckpoint(
            f"{path}: not a checkpoint written by this project (its keys: {', '.join(map(str, list(content)[:6]))}); "
            f"`svdnet convert {path} OUT.pth` converts one of torchreid, fast-reid, reid-strong-baseline or layumi"
        )
    if not all(isinstance(name, str) and is_dense(value) for name, value in content["model"].items()):
        raise InputError(f"{path}: its model is not a state dict of dense tensors")
    return content


@names_file
def load_tensors(path: Path) -> dict[Any, Any]:
    """Load any file of `torch.save` that holds a dict of tensors, plain values and NumPy scalars.

    Args:
        path: File written by `torch.save`; its pickle is read without executing code.

    Returns:
        The dict, with tensors on the CPU.

    Raises:
        InputError: If the file is missing or corrupt, holds something else, or could only be loaded by executing code.
        OSError: If it cannot be read, or memory runs out (ENOMEM) although the file matches its digest.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    whole = check_seal(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
            warnings.simplefilter("ignore")
            source = path if whole else copy_archive(path)
            check_pickles(source)
            content = torch.load(source, map_location="cpu", weights_only=True)
            check_tensors(content, path.stat().st_size)
    except InputError:
        raise
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            if whole:  # a shortage of memory must not make a sound checkpoint pass for a corrupt one
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None
            raise InputError(f"{path}: corrupt, or larger than the memory of this machine can hold") from None
        # In a truncated file torch seeks before its start, an invalid argument; other OSErrors are the machine's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InputError(f"{path}: {_explain(path, error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    return content


def _explain(path: Path, error: Exception) -> str:
    """Why a file cannot be loaded, and what to do about it."""
    advice = "if you trust it, load it in the program it came from and write torch.save(model.state_dict(), FILE)"
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        requested = re.search(r"(?:GLOBAL|global) ([\w.]+)", text)
        if "GLOBAL" in text or "Unsupported class" in text:
            what = f" (it requests {requested[1]})" if requested else ""
            return f"loading it would execute code{what}, so it was not loaded; {advice}"
    with open(path, "rb") as file:
        start = file.read(512)
    if text_file := describe_text(start):
        return text_file
    is_tar = start[257:262] == b"ustar"
    for kind, found in (("TorchScript archive", "TorchScript" in text), ("file in the legacy .tar format", is_tar)):
        if found:
            return f"a {kind}, which cannot be read without executing code; {advice}"
    # torch.save writes a zip archive; old versions wrote a pickle of protocol 2 that begins with a magic number.
    if "magic number" in text or start[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return f"a bare pickle, not a file of torch.save: reading it could execute code; {advice}"
    detail = str(error) if type(error) is ValueError and "\n" not in text else type(error).__name__
    return f"corrupt or not a checkpoint ({detail})"


def load_state_dict(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    network: str,
    source: str,
    unused: Collection[str] = (),
    finite: bool = True,
) -> None:
    """Copy weights into a module if names and shapes match exactly and all are finite; otherwise nothing is copied.

    Args:
        module: Module whose parameters and buffers are overwritten.
        weights: Name to tensor. BatchNorm's `num_batches_tracked` may be missing, as in old checkpoints.
        network: Name of the module in error messages.
        source: Name of the weights' origin in error messages.
        unused: Names of `weights` that the module need not have.
        finite: Whether to refuse weights that are NaN or infinite.

    Raises:
        InputError: If tensors are missing, unexpected, of a different shape or not finite; the message names some of
            them.
    """
    own = module.state_dict()
    check_state_dict(own, weights, network=network, source=source, unused=unused)
    if finite and (broken := [name for name in own if name in weights and not weights[name].isfinite().all()]):
        raise InputError(
            f"{source}: {len(broken)} of {len(own)} tensors hold NaN or infinity, the first is {broken[0]}; the "
            "training has diverged: use an earlier checkpoint, or train with a lower learning rate"
        )
    module.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


def check_state_dict(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, network: str, source: str, unused: Collection[str] = ()
) -> None:
    """Check that weights have the names and shapes of a state dict, as `load_state_dict` does.

    Args:
        own: State dict of the module to fill.
        weights: Name to tensor.
        network: Name of the module in error messages.
        source: Name of the weights' origin in error messages.
        unused: Names of `weights` that the module need not have.

    Raises:
        InputError: If tensors are missing, unexpected or of a different shape.
    """
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own and name not in unused]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for fault, names in (("missing", missing), ("unexpected", unexpected), ("of a different shape", reshaped))
        if names
    ]
    if faults:
        raise InputError(
            f"{source}: not the weights of {network}, perhaps a checkpoint of a different network; "
            f"of {len(own)} tensors {'; '.join(faults)}"
        )
