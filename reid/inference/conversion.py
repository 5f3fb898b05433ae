"""Conversion of other codebases' checkpoints, and packing of checkpoints for distribution."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from reid.config import build
from reid.distributed import is_main_process
from reid.errors import InputError
from reid.io.checkpoint import FORMAT, ForeignCheckpoint, load_checkpoint, load_state_dict
from reid.io.state_dicts import read_state_dict
from reid.model.foreign import Converted, convert
from reid.model.network import ReidNetwork


def load_any(path: Path) -> dict[str, Any]:
    """Load a checkpoint of this project, or convert one of another codebase, with a line on stderr that says so.

    Everything that takes weights loads them here.

    Args:
        path: Checkpoint file, of this project or of a known family.

    Returns:
        The content of a checkpoint of this project.

    Raises:
        InputError: If the file is missing, corrupt or of an unknown family.
    """
    try:
        return load_checkpoint(path)
    except ForeignCheckpoint:
        content, found = convert_checkpoint(path)
    if is_main_process():
        notes = "".join(f"; {note}" for note in found.notes)
        print(f"{path}: {_recognized(found)}, converted on loading{notes}", file=sys.stderr)
    return content


def load_network(path: Path) -> tuple[ReidNetwork, CfgNode]:
    """Load the network of a checkpoint, see `load_any`.

    Args:
        path: Checkpoint file, of this project or of a known family.

    Returns:
        The network, on the CPU in evaluation mode, and the configuration in the checkpoint.

    Raises:
        InputError: If the file is missing, corrupt or of an unknown family, or its weights do not fit its configuration
            or are not finite.
    """
    return build.network_from_checkpoint(load_any(path), source=str(path))


def convert_checkpoint(
    path: Path, *, family: str | None = None, overrides: Sequence[str] = ()
) -> tuple[dict[str, Any], Converted]:
    """Convert another codebase's checkpoint.

    Args:
        path: Checkpoint file of another codebase.
        family: One of `reid.model.foreign.FAMILIES`; None to recognize it by its tensors.
        overrides: KEY VALUE pairs for what the tensors do not determine, such as MODEL.LAST_STRIDE.

    Returns:
        The content of a checkpoint of this project, for `save_checkpoint`, whose "origin" names the family and the
        differences; and the result of the recognition.

    Raises:
        InputError: If the family is unknown, or tensors or overrides do not fit.
    """
    tensors, own, notes = read_state_dict(path)
    if own is not None:
        raise InputError(f"{path}: already a checkpoint of this project; there is nothing to convert")
    found = dataclasses.replace(convert(tensors, source=str(path), family=family), notes=notes)
    own_pairs = [text for key, value in _keys_of(found).items() for text in (key, str(value))]
    config = build.config_from_overrides([*own_pairs, *overrides], source=f"the conversion of {path}")
    model = build.network(config, num_classes=found.num_classes)
    # A pooling exponent may be a tensor here but a constant in the other codebase.
    filled = model.pooling.state_dict(prefix="pooling.") | found.tensors
    load_state_dict(model, filled, network=f"{found.family}'s {found.architecture} as configured", source=str(path))
    differences = [*found.notes, *found.differences]
    origin = {"family": found.family, "architecture": found.architecture, "differences": differences}
    content = {"model": dict(model.state_dict()), "config": config.dump(), "num_classes": found.num_classes}
    return {"format": FORMAT, **content, "origin": origin}, found


def pack_checkpoint(content: Mapping[str, Any], *, classifier: bool = True, source: str) -> dict[str, Any]:
    """Reduce a checkpoint to the network and its configuration, without training state and paths.

    Args:
        content: Content of a checkpoint.
        classifier: False to replace the classifier by a single class of zeros.
        source: What error messages call the checkpoint.

    Returns:
        The content of a smaller checkpoint.

    Raises:
        InputError: If the classifier is to be removed but the Eigenlayer is the classifier.
    """
    _, config = build.network_from_checkpoint(content, source=source)
    kept = {key: content[key] for key in ("format", "num_classes", "calibration", "origin", "timm") if key in content}
    model = dict(content["model"])
    if not classifier:
        if config.MODEL.EIGENLAYER.LAST:
            raise InputError(f"{source}: the Eigenlayer is the classifier, which cannot be removed")
        kept["num_classes"] = 1
        names = [name for name in model if name.startswith("classifier.") and model[name].ndim]
        model |= {name: torch.zeros_like(model[name][:1]) for name in names}
    return {**kept, "model": model, "config": without_paths(config).dump()}


def without_paths(config: CfgNode) -> CfgNode:
    """Remove the folders of the machine on which the network was trained.

    Args:
        config: The configuration of a checkpoint.

    Returns:
        A copy, in which the pretrained weights are named without their folder.
    """
    public = config.clone()
    public.defrost()
    public.OUTPUT_DIR, public.MODEL.WEIGHTS = "runs/packed", Path(config.MODEL.WEIGHTS).name
    public.DATASETS.ROOT = public.DATASETS.CACHE = public.DATASETS.FOLDER_ROOT = ""
    return public


def _recognized(found: Converted) -> str:
    classes = f"{found.num_classes} class{'' if found.num_classes == 1 else 'es'}"
    return f"{found.architecture} of {found.family}, {classes}"


def _keys_of(found: Converted) -> dict[str, Any]:
    """The configuration of a converted network, as dotted keys."""
    recognized = found.recognized
    body, head = recognized.body, recognized.head
    return {
        "MODEL.BACKBONE": body.backbone,
        "MODEL.NORM.NAME": body.norm,
        "MODEL.POOLING.NAME": body.pooling,
        "MODEL.LAST_STRIDE": body.last_stride or 0,
        "MODEL.STEM": body.stem,
        "MODEL.NECK": "bnneck" if head.bnneck else "fc512" if body.fc512 else "none",
        "MODEL.EIGENLAYER.DIM": head.width,
        "MODEL.EIGENLAYER.BIAS": head.bias,
        "MODEL.WEIGHTS": "none",
        "INPUT.SIZE": list(recognized.size),
        "INPUT.RESIZE": recognized.resize,
        "INPUT.MEAN": list(recognized.mean),
        "INPUT.STD": list(recognized.std),
        "TEST.FEATURE": head.feature,
    }
