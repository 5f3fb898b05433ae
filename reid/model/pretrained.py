"""Where the weights of a pretrained backbone come from, and whether they fit."""

from __future__ import annotations

import http.client
import urllib.error
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from reid.errors import InputError


def load_pretrained(backbone: str, where: str, *, roots: Sequence[Path] = ()) -> Mapping[str, Tensor] | None:
    """The published state dict of the bare `backbone`, on the CPU; None for "none".

    where: "none"; "imagenet", torchvision's own download of IMAGENET1K_V1; or the path of a file that `torch.load` can
    read without running code, relative ones looked for in the working folder and then under `roots`. A dict holding
    the tensors under "state_dict" and names with the prefix "module." are accepted.
    Raises InputError when there is no such file, when it holds no tensors, or when the download fails.
    """
    if where == "none":
        return None
    if where == "imagenet":
        return _download(backbone)
    return _read(_find(where, roots))


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


def _download(backbone: str) -> Mapping[str, Tensor]:
    try:
        published = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except (ValueError, KeyError):
        raise InputError(
            f"torchvision has no ImageNet weights for {backbone}: give the path of its published file, or 'none'"
        ) from None
    try:
        return dict(published.get_state_dict(progress=True, check_hash=True))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = f"cannot be reached ({error})"
    except RuntimeError as error:
        reason = f"sent a broken file ({error})"
    raise InputError(
        f"the ImageNet weights of {backbone}: {published.url} {reason}; give the path of the file, or 'none'"
    )


def _find(where: str, roots: Sequence[Path]) -> Path:
    path = Path(where).expanduser()
    places = [path, *([] if path.is_absolute() else [root / path for root in roots])]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"no weights file at {' or '.join(map(str, places))}; give 'imagenet', 'none' or the path of a file"
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way it likes
        raise InputError(
            f"{path}: not a checkpoint that loads without running code (torch.load, weights_only): "
            f"{type(error).__name__}; give a state dict saved by torch.save"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}, not the named tensors of a network")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: {name!r} is a {type(value).__name__}, not a named tensor; "
                "expected a state dict, or one under 'state_dict'"
            )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): value for name, value in content.items()}
