"""The weights in a file, whoever wrote it: this project, torchvision, torchreid, fast-reid, timm, safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from reid.errors import InputError
from reid.io.checkpoint import FORMAT, load_tensors
from reid.io.safetensors_files import load_safetensors, parse_checkpoint
from reid.io.tensor_files import is_dense

# Where training programs put the state dict, the usual ones first.
KEYS = (
    *("state_dict", "model", "net", "network", "model_state_dict", "model_state", "weights", "params", "module"),
    *("state_dict_ema", "model_ema", "ema", "teacher", "student"),
)
# What DataParallel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The named tensors of a file, on the CPU, and the configuration where a checkpoint of this project carries one.

    A state dict is taken bare, under one of `KEYS`, or under the only other key that holds named tensors; what is no
    dense tensor in it is left out, and prefixes that all names share by DataParallel or torch.compile go.
    `.safetensors` files are read by their library, all others by `reid.io.checkpoint.load_tensors`, so no code in a file
    is executed. Raises InputError, in one line, for a file that is missing, broken, asks for code, or holds no weights.
    """
    if path.suffix == ".safetensors":
        tensors, metadata = load_safetensors(path)
        kept = parse_checkpoint(tensors, metadata)
        return _bare_names(_tensors(tensors)), kept["config"] if kept and kept["format"] == FORMAT else None
    content = load_tensors(path)
    config = content.get("config")
    kind = content.get("format")
    ours = isinstance(kind, int) and kind == FORMAT and isinstance(config, str) and "num_classes" in content
    return _bare_names(_state_dict(content, path)), config if ours else None


def _state_dict(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    own = _tensors(content)
    nested = {key: found for key, value in content.items() if (found := _tensors(value))}
    # An optimizer's state may hold tensors too, but deeper: its own keys are `state` and `param_groups`.
    for key in KEYS:
        if key in nested:
            return nested[key]
    if own:
        return own
    if len(nested) == 1:
        return next(iter(nested.values()))
    for key in KEYS:
        # Not of one that holds itself.
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner is not content and any(_tensors(value) for value in inner.values()):
            return _state_dict(inner, path)
    keys = ", ".join(map(str, list(content)[:6])) or "none"
    why = f"several keys hold tensors ({', '.join(map(str, nested))})" if nested else f"its keys: {keys}"
    raise InputError(f"{path}: no state dict found, {why}; save one: torch.save(model.state_dict(), FILE)")


def _tensors(value: Any) -> dict[str, Tensor]:
    """The dense tensors among the named values of a mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and is_dense(tensor)}


def _bare_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
