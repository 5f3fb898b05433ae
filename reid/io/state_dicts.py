"""State dicts from files of any program: this project, torchvision, torchreid, fast-reid, timm, safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from reid.errors import InputError
from reid.io.checkpoint import FORMAT, load_tensors
from reid.io.safetensors_files import load_safetensors, parse_checkpoint
from reid.io.tensor_files import is_dense

# Keys under which training programs save the state dict, the most usual ones first.
KEYS = (
    *("state_dict", "model", "net", "network", "model_state_dict", "model_state", "weights", "params", "module"),
    *("state_dict_ema", "model_ema", "ema", "teacher", "student"),
)
# Put before every name by DataParallel and torch.compile.
PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read the weights from a checkpoint of any program, without executing code in it.

    A state dict may be at the top level, under one of `KEYS`, or under the only other key that holds named tensors.
    Values that are not dense tensors are dropped, and so are the prefixes of DataParallel and `torch.compile`.

    Args:
        path: A `.safetensors` file or a file of `torch.save`.

    Returns:
        Name to tensor, on the CPU, and the configuration if this project wrote the file, else None.

    Raises:
        InputError: If the file is missing, corrupt, requires executing code, or holds no weights.
    """
    if path.suffix == ".safetensors":
        tensors, metadata = load_safetensors(path)
        checkpoint = parse_checkpoint(tensors, metadata)
        is_ours = checkpoint is not None and checkpoint["format"] == FORMAT
        return _strip_prefixes(_dense_tensors(tensors)), checkpoint["config"] if checkpoint and is_ours else None
    content = load_tensors(path)
    config = content.get("config")
    version = content.get("format")
    is_ours = isinstance(version, int) and version == FORMAT and isinstance(config, str) and "num_classes" in content
    return _strip_prefixes(_find_state_dict(content, path)), config if is_ours else None


def _find_state_dict(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    own = _dense_tensors(content)
    nested = {key: found for key, value in content.items() if (found := _dense_tensors(value))}
    # An optimizer's state may hold tensors too, but deeper: its own keys are `state` and `param_groups`.
    for key in KEYS:
        if key in nested:
            return nested[key]
    if own:
        return own
    if len(nested) == 1:
        return next(iter(nested.values()))
    for key in KEYS:
        # A mapping may contain itself.
        inner = content.get(key)
        if (
            isinstance(inner, Mapping)
            and inner is not content
            and any(_dense_tensors(value) for value in inner.values())
        ):
            return _find_state_dict(inner, path)
    keys = ", ".join(map(str, list(content)[:6])) or "none"
    why = f"several keys hold tensors ({', '.join(map(str, nested))})" if nested else f"its keys: {keys}"
    raise InputError(f"{path}: no state dict found, {why}; save one: torch.save(model.state_dict(), FILE)")


def _dense_tensors(value: Any) -> dict[str, Tensor]:
    """The dense tensors among the named values of a mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and is_dense(tensor)}


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
