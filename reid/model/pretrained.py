"""Weights of a pretrained backbone, downloaded or from a file."""

from __future__ import annotations

import http.client
import logging
import re
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid.errors import InputError
from reid.io.digest import compute_file_digest
from reid.io.state_dicts import read_state_dict
from reid.model.backbones import timm_trunk

logger = logging.getLogger(__name__)


def load_pretrained(backbone: str, weights: str, *, roots: Sequence[Path] = ()) -> Mapping[str, Tensor] | None:
    """Load the published state dict of a bare backbone, on the CPU.

    The tensors may lie wherever `reid.io.state_dicts.read_state_dict` finds them. From a checkpoint of this project all
    are loaded, under the names of the whole network. A file whose name ends in the first 8
    digits of its SHA-256, as torchvision's do, is compared with them each time, also where it was downloaded before.

    Args:
        backbone: Name of the backbone.
        weights: "none"; "imagenet" for torchvision's download of IMAGENET1K_V1, or timm's of its own weights; or the
            path of a file that `torch.load` can read without executing code.
        roots: Folders in which a relative path is looked up after the working directory.

    Returns:
        The state dict, or None for "none".

    Raises:
        InputError: If the file does not exist, holds no weights or does not match the digest in its name, or if the
            download fails.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return timm_trunk.download(backbone) if backbone.startswith(timm_trunk.PREFIX) else _download(backbone)
    return _read(_find(weights, roots))


def _download(backbone: str) -> Mapping[str, Tensor]:
    import torchvision  # takes a second

    try:
        published = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except (ValueError, KeyError):
        raise InputError(
            f"torchvision has no ImageNet weights for {backbone}: give the path of its published file, or 'none'"
        ) from None
    # `get_state_dict` would execute the pickle of a cached file, and check the hash of a new one only.
    path = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(path), _published_hash(path))
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = f"cannot be reached ({error})"
        except RuntimeError as error:
            reason = f"sent a corrupt file ({error})"
        else:
            return _read(path)
        raise InputError(
            f"the ImageNet weights of {backbone}: {published.url} {reason}; give the path of the file, or 'none'"
        )
    try:
        return _read(path)
    except InputError as error:
        raise InputError(f"{error}; delete the file and it is downloaded again") from None


def _published_hash(path: Path) -> str | None:
    """The first digits of the SHA-256 of the file, which torchvision and others publish in its name."""
    found = re.fullmatch(r".*-(?!(?:19|20)\d{6}\.)([0-9a-f]{8}|[0-9a-f]{64})\.\w+", path.name)  # not a date
    return found[1] if found else None


def _find(weights: str, roots: Sequence[Path]) -> Path:
    path = Path(weights).expanduser()
    candidates = [path, *([] if path.is_absolute() else [root / path for root in roots])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"no weights file at {' or '.join(map(str, candidates))}; give 'imagenet', 'none' or the path of a file "
        "(relative paths are also looked up in the folder REID_WEIGHTS)"
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    expected = _published_hash(path)
    if expected and not compute_file_digest(path).startswith(expected):
        raise InputError(f"{path}: corrupt or changed: its SHA-256 does not begin with {expected}, as its name says")
    tensors, _, notes = read_state_dict(path)
    for note in notes:
        logger.warning("%s: %s", path, note)
    return tensors
