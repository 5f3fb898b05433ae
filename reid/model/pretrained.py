"""Where the weights of a pretrained backbone come from, and whether they fit."""

from __future__ import annotations

import http.client
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path

import torchvision
from torch import Tensor

from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, load_tensors
from reid.io.tensor_files import is_dense


def load_pretrained(backbone: str, where: str, *, roots: Sequence[Path] = ()) -> Mapping[str, Tensor] | None:
    """The published state dict of the bare `backbone`, on the CPU; None for "none".

    where: "none"; "imagenet", torchvision's own download of IMAGENET1K_V1; or the path of a file that `torch.load` can
    read without running code, relative ones looked for in the working folder and then under `roots`. A dict holding
    the tensors under "state_dict" and names with the prefix "module." are accepted, and so is a checkpoint of ours, of
    which all tensors are given, under the names of the whole network.
    Raises InputError when there is no such file, when it holds no tensors, or when the download fails.
    """
    if where == "none":
        return None
    if where == "imagenet":
        return _download(backbone)
    return _read(_find(where, roots))


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
        f"no weights file at {' or '.join(map(str, places))}; give 'imagenet', 'none' or the path of a file "
        "(relative ones are looked for in the folder REID_WEIGHTS too)"
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(load_checkpoint(path)["model"])
    content: Mapping[str, object] = load_tensors(path)
    if {"format", "model", "config", "num_classes"} <= set(content):
        return dict(load_checkpoint(path)["model"])
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # type: ignore[assignment]
    if not content:
        raise InputError(f"{path}: holds no tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not is_dense(value):
            raise InputError(
                f"{path}: {name!r} is a {type(value).__name__}, not a named tensor; "
                "expected a state dict, or one under 'state_dict'"
            )
        tensors[name] = value
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}
