"""Checkpoints: written beside, flushed and renamed; checked by their checksums and read without executing a pickle."""

from __future__ import annotations

import errno
import os
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid.errors import InputError
from reid.io.atomic import link_or_copy, write_bytes
from reid.io.safetensors_files import load_safetensors, parse_checkpoint
from reid.io.tensor_files import FORMAT as FORMAT
from reid.io.tensor_files import SAFE_GLOBALS, check_archive_size, check_tensors, is_dense, to_bytes


class ForeignCheckpoint(InputError):
    """A whole file of tensors that this project did not write."""


def save_checkpoint(path: Path, content: dict[str, Any], *, previous: Path | None = None) -> None:
    """Write `content` (tensors and plain Python values) so that `path` holds either the old file or the whole new one.

    previous: where the old file is kept. At every moment `path` or `previous` is a whole checkpoint, once one was.
    Raises OSError (a full disk, say) with nothing half-written left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Serialized first: torch's own file writer turns a full disk or a Ctrl-C in its midst into a RuntimeError.
    data = to_bytes({"format": FORMAT, **content})
    if previous is not None and path.exists():
        link_or_copy(path, previous)
    write_bytes(path, data)


def load_latest(path: Path, previous: Path, tell: Callable[[str], None] = print) -> dict[str, Any] | None:
    """The checkpoint at `path` or, where that is broken, the one before, which takes its place; None without any.

    tell: called with a line about a broken one. Raises InputError where none is whole.
    """
    if not path.exists() and not previous.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        if not previous.exists():
            raise
        content = load_checkpoint(previous)
        tell(f"{error}; going on from the checkpoint before it")
        os.replace(previous, path)
        return content


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, .pth or .safetensors.

    Raises InputError for a missing or broken file, ForeignCheckpoint for that of another program; no code in it is
    executed.
    """
    content: dict[Any, Any]
    if path.suffix == ".safetensors":
        tensors, metadata = load_safetensors(path)
        content = parse_checkpoint(tensors, metadata) or {**metadata, **tensors}
    else:
        if path.is_file():
            _check_sums(path)
        content = load_tensors(path)
    kinds = {"format": int, "model": dict, "config": str, "num_classes": int}
    if not all(isinstance(content.get(k), kind) for k, kind in kinds.items()) or content["format"] != FORMAT:
        raise ForeignCheckpoint(
            f"{path}: not a checkpoint written by this project (its keys: {', '.join(map(str, list(content)[:6]))})"
        )
    if not all(isinstance(name, str) and is_dense(value) for name, value in content["model"].items()):
        raise InputError(f"{path}: the model in it is no state dict of dense tensors")
    return content


def _check_sums(path: Path) -> None:
    """Compare the CRC-32 that `torch.save` wrote beside every tensor, which `torch.load` does not look at."""
    if not zipfile.is_zipfile(path):
        return  # what else it may be, `load_tensors` tells
    try:
        check_archive_size(path)
    except ValueError as error:
        raise InputError(f"{path}: broken: {error}") from None
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start of the file
            raise
        broken = "its directory"
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError):
        broken = "its directory"
    if broken:
        raise InputError(f"{path}: broken: {broken} is not what its checksum says")


def load_tensors(path: Path) -> dict[Any, Any]:
    """Any file of `torch.save` that holds a dict of tensors, plain values and NumPy numbers.

    No code in it is executed. Raises InputError for a file that asks for that, is broken or is something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
            warnings.simplefilter("ignore")
            check_archive_size(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            check_tensors(content, path.stat().st_size)
    except MemoryError:
        raise InputError(f"{path}: broken, or larger than the memory of this machine can hold") from None
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way it likes
        # In a file cut short torch seeks before its start, an invalid argument; other OSErrors are the machine's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InputError(f"{path}: {_refusal(path, error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    return content


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not loaded, and what to do where something can be done."""
    convert = "where you trust it, load it in the program it came from and write torch.save(model.state_dict(), FILE)"
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        wanted = re.search(r"(?:GLOBAL|global) ([\w.]+)", text)
        if "GLOBAL" in text or "Unsupported class" in text:
            asked = f" (it asks for {wanted[1]})" if wanted else ""
            return f"loading it would execute code{asked}, so it was not loaded; {convert}"
    for kind, mark in (("TorchScript archive", "TorchScript"), ("file in the legacy .tar format", "legacy .tar")):
        if mark in text:
            return f"a {kind}, which cannot be read without executing code; {convert}"
    with open(path, "rb") as file:
        start = file.read(2)
    # torch.save writes a zip archive, or of old a pickle of protocol 2 that begins with a magic number.
    if "magic number" in text or (start[:1] == b"\x80" and start[1:] in (b"\x03", b"\x04", b"\x05")):
        return f"a bare pickle and no file of torch.save: reading it could execute code; {convert}"
    return f"broken or no checkpoint ({type(error).__name__})"


def load_state_dict(
    module: nn.Module, weights: Mapping[str, Tensor], *, network: str, source: str, unused: Collection[str] = ()
) -> None:
    """Copy `weights` into `module`; every tensor must be there in its shape, and none beside them but `unused`.

    network, source: what the error calls the two. The batch counters of BatchNorm may be missing, as they are in
    checkpoints older than them. Raises InputError naming some of the tensors that differ; nothing is copied then.
    """
    own = module.state_dict()
    check_state_dict(own, weights, network=network, source=source, unused=unused)
    module.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


def check_state_dict(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, network: str, source: str, unused: Collection[str] = ()
) -> None:
    """Raise the InputError of `load_strictly` where `weights` have not the names and shapes of `own`."""
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
