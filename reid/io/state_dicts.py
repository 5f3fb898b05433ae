"""State dicts from files of any program: this project, torchvision, torchreid, fast-reid, timm, safetensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
# Modules that only hold the network, outermost in the names of its tensors: those of DataParallel, AveragedModel,
# torch.compile, Lightning, ema-pytorch and mean teachers. Of several that hold the same names, the first is taken.
WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "ema_model", "online_model", "teacher", "student")
# What such programs keep beside the network: counters, losses, averages under other names.
_BESIDE = (
    *("n_averaged", "initted", "step", "num_updates", "decay", "model_ema"),
    *("criterion", "criterions", "loss", "losses", "loss_fn", "center_loss"),
)
_MAX_WRAPPERS = 6


class StateDict(NamedTuple):
    """Weights read from a file.

    Attributes:
        tensors: Name to tensor, on the CPU.
        config: The configuration if this project wrote the file, else None.
        notes: What was left out or chosen, one line each.
    """

    tensors: dict[str, Tensor]
    config: str | None
    notes: tuple[str, ...]


def read_state_dict(path: Path, *shards: Path) -> StateDict:
    """Read the weights from a checkpoint of any program, without executing code in it.

    A state dict may be at the top level, under one of `KEYS`, or under the only other key that holds named tensors.
    Values that are not dense tensors are dropped, and so are `WRAPPERS`, where all names begin with one. Counters of
    batches become scalars: some programs save them with shape (1,).

    Args:
        path: A `.safetensors` file or a file of `torch.save`.
        shards: More files with tensors of the same network.

    Returns:
        The tensors, the configuration, and notes.

    Raises:
        InputError: If a file is missing, corrupt, requires executing code, or holds no weights.
    """
    notes: list[str] = []
    found, config = _read(path, notes)
    for shard in shards:
        found |= _read(shard, notes)[0]
    counters = {name: value.reshape(()) for name, value in found.items() if _is_counter(name) and value.numel() == 1}
    return StateDict(_unwrap({**found, **counters}, notes), config, tuple(notes))


def _read(path: Path, notes: list[str]) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file under their full names, and the configuration if this project wrote it."""
    if path.suffix == ".safetensors":
        tensors, metadata = load_safetensors(path)
        checkpoint = parse_checkpoint(tensors, metadata)
        is_ours = checkpoint is not None and checkpoint["format"] == FORMAT
        return _dense_tensors(tensors), checkpoint["config"] if checkpoint and is_ours else None
    content = load_tensors(path)
    config, version = content.get("config"), content.get("format")
    is_ours = isinstance(version, int) and version == FORMAT and isinstance(config, str) and "num_classes" in content
    return _find_state_dict(content, path, [] if is_ours else notes), config if is_ours else None


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _find_state_dict(content: Mapping[Any, Any], path: Path, notes: list[str]) -> dict[str, Tensor]:
    own = _dense_tensors(content)
    nested = {key: found for key, value in content.items() if (found := _dense_tensors(value))}
    # An optimizer's state may hold tensors too, but deeper: its own keys are `state` and `param_groups`.
    for key in KEYS:
        if key in nested:
            names = _inner_names(nested[key])
            copies = [other for other in nested if other != key and _inner_names(nested[other]) == names]
            if copies:
                notes.append(f"of its sets of weights, {key} is taken, not {' or '.join(map(str, copies))}")
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
            return _find_state_dict(inner, path, notes)
    keys = ", ".join(map(str, list(content)[:6])) or "none"
    why = f"several keys hold tensors ({', '.join(map(str, nested))})" if nested else f"its keys: {keys}"
    raise InputError(f"{path}: no state dict found, {why}; save one: torch.save(model.state_dict(), FILE)")


def _dense_tensors(value: Any) -> dict[str, Tensor]:
    """The dense tensors among the named values of a mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and is_dense(tensor)}


def _inner_names(tensors: Mapping[str, Tensor]) -> set[str]:
    return set(_unwrap(tensors, []))


def _unwrap(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Remove the wrappers that all names begin with, and what lies beside them."""
    unwrapped = dict(tensors)
    for _ in range(_MAX_WRAPPERS):
        inner = _innermost(unwrapped, notes)
        if inner is None:
            break
        unwrapped = inner
    return unwrapped


def _innermost(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor] | None:
    """Remove one wrapper; None if there is none."""
    roots = dict.fromkeys(name.partition(".")[0] for name in tensors)
    wrappers = [name for name in WRAPPERS if name in roots]
    beside = [name for name in roots if name in _BESIDE]
    sets = [_below(tensors, name) for name in wrappers]
    if len(wrappers) + len(beside) != len(roots) or not sets or not sets[0]:
        return None
    if any(set(other) != set(sets[0]) for other in sets[1:]):
        return None  # parts of one network
    if sets[1:]:
        notes.append(f"of its sets of weights, {wrappers[0]}.* is taken, not {_listed(wrappers[1:])}")
    if beside:
        notes.append(f"beside {wrappers[0]}.*, {_listed(beside)} is left out")
    return sets[0]


def _below(tensors: Mapping[str, Tensor], root: str) -> dict[str, Tensor]:
    return {name[len(root) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{root}.")}


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"{name}.*" if name not in ("n_averaged", "initted", "step") else name for name in names)
