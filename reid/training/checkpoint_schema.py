"""What the checkpoint of a training must hold, checked once before any of it is used.

A checkpoint that another program changed may hold anything. Values that pass have the types, ranges and order that the
training writes; names and shapes of tensors are compared with the network where they are loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.errors import InputError
from reid.io.tensor_files import is_dense
from reid.records import PER_QUERY, StageLog

ROUND = ("decorrelate", "restraint", "relaxation")
MAX_COUNT = 10**12
MAX_THREADS = 1024
MT19937_WORDS = 624
SHOWN = 40  # characters of a wrong value in an error

Check = Callable[[Any], bool]
# A dict of named schemas, [schema] for a list of any length, (schema,) for what may be None, or a check of one value.
Schema = Any


def check_training_content(content: Mapping[str, Any], *, run: str, source: str) -> None:
    """Check everything in a checkpoint that resuming a training needs, except for the network's own tensors.

    Args:
        content: The checkpoint.
        run: The run it must belong to, "rri" or "control".
        source: Name of the file in error messages.

    Raises:
        InputError: If something is missing, of another type or out of range, or if its parts contradict each other.
    """
    problem = _problem(content, CONTENT) or _contradiction(content, run)
    if problem:
        raise InputError(f"{source}: not the state of this run: {problem}")


def _problem(value: Any, schema: Schema, place: str = "") -> str:
    """The first value that does not fit, with its place; empty if all do."""
    if isinstance(schema, tuple):
        return "" if value is None else _problem(value, schema[0], place)
    if isinstance(schema, dict):
        if not isinstance(value, Mapping):
            return _wrong(value, place)
        missing = [name for name in schema if name not in value and name not in OPTIONAL]
        if missing:
            return f"{_join(place, missing[0])} is missing"
        problems = (_problem(value[name], schema[name], _join(place, name)) for name in schema if name in value)
    elif isinstance(schema, list):
        if not isinstance(value, list | tuple):
            return _wrong(value, place)
        problems = (_problem(item, schema[0], f"{place}[{number}]") for number, item in enumerate(value))
    else:
        return "" if schema(value) else _wrong(value, place)
    return next(filter(None, problems), "")


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _wrong(value: Any, place: str) -> str:
    shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:SHOWN]
    return f"{place} cannot be {shown}"


def _contradiction(content: Mapping[str, Any], run: str) -> str:
    """What no training writes, although each value alone would be possible."""
    position, rows = content["position"], content["rows"]
    unknown = [*(set(position) - set(POSITION)), *(set((content.get("middle") or {}).get("sums", ())) - set(SUMS))]
    changes = (content.get("threads") or {}).get("changes", ())
    unknown += [name for change in changes for name in change if name not in THREADS["changes"][0]]
    if unknown:
        return f"it holds an unknown value {str(unknown[0])[:SHOWN]!r}"
    if {position["run"], *(row["run"] for row in rows)} != {run}:
        return f"it belongs to the run {position['run']!r}"
    stages = [(row["stage"], row["round"]) for row in rows]
    if stages != [stage_at(number) for number in range(len(rows))]:
        return "its finished stages are not in order"
    if position["stage"] and (position["stage"], position["round"]) != stage_at(len(rows)):
        return f"the stage {position['stage']} {position['round']} does not follow its finished stages"
    if len(position["losses"]) != position["epoch"]:
        return f"it holds {len(position['losses'])} losses of {position['epoch']} epochs"
    # Step 0 has none if it was taken from a checkpoint.
    trains = {"decorrelate": (False,), "step0": (False, True)}
    wrong = next((row["stage"] for row in rows if bool(row["epochs"]) not in trains.get(row["stage"], (True,))), None)
    if wrong:
        return f"its finished stage {wrong} has an impossible number of epochs"
    begun = position["round"] or position["epoch"] or content.get("middle")
    if begun and not position["stage"]:
        return "it holds a round or epochs that belong to no stage"
    if position["epoch"] and not (position["seconds"] > 0 and position["images"] > 0):
        return "its epochs took no time or had no images"
    return ""


def stage_at(number: int) -> tuple[str, int]:
    """Name a stage of a run by its number: Step 0, then rounds of decorrelation, Restraint and Relaxation.

    Args:
        number: From 0.

    Returns:
        Name and round of the stage.
    """
    return (ROUND[(number - 1) % 3], 1 + (number - 1) // 3) if number else ("step0", 0)


def _is_number(value: Any) -> bool:
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return bool(real and math.isfinite(value))


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(0 <= value <= MAX_COUNT)


def _is_thread_count(value: Any) -> bool:
    return _is_count(value) and 1 <= value <= MAX_THREADS


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_parts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(_is_number, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_plain(value: Any) -> bool:
    """Whether it can be written as JSON."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def _in(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and is_dense(v) for k, v in value.items())


def _is_optimizer(value: Any) -> bool:
    """Whether it has the form of an optimizer's state dict; `resume_optimizer` compares it with the optimizer."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("state"), Mapping)
        and all(isinstance(state, Mapping) for state in value["state"].values())
        and isinstance(value.get("param_groups"), list)
        and all(isinstance(group, Mapping) and _is_parameters(group.get("params")) for group in value["param_groups"])
    )


def _is_parameters(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)


def _is_words(value: Any) -> bool:
    """Whether it is a 1D tensor of bytes, the state of one of PyTorch's generators."""
    return is_dense(value) and value.dtype == torch.uint8 and value.ndim == 1


def _is_numpy_state(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return False
    keys, position, has_gauss, gauss = value
    return (
        is_dense(keys)
        and (keys.dtype, tuple(keys.shape)) == (torch.int64, (MT19937_WORDS,))
        and bool(((keys >= 0) & (keys < 2**32)).all())
        and _is_count(position)
        and position <= MT19937_WORDS
        and _is_count(has_gauss)
        and has_gauss <= 1
        and _is_number(gauss)
    )


def _is_python_state(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3 or not isinstance(value[1], list | tuple):
        return False
    version, numbers, gauss = value
    return (
        (type(version), version) == (int, 3)
        and len(numbers) == MT19937_WORDS + 1
        and all(type(number) is int and 0 <= number < 2**32 for number in numbers)
        and numbers[-1] <= MT19937_WORDS
        and (gauss is None or _is_number(gauss))
    )


def _is_torch_state(value: Any) -> bool:
    return _is_words(value) and value.shape == torch.get_rng_state().shape and _fits_generator(value)


def _fits_generator(state: Tensor) -> bool:
    try:
        torch.Generator().set_state(state)
    except RuntimeError:
        return False
    return True


def _is_descriptors(value: Any) -> bool:
    return is_dense(value) and value.ndim == 2 and value.dtype == torch.float32 and bool(value.isfinite().all())


def _is_per_query(value: Any) -> bool:
    """Whether it holds (Q, 3) fractions."""
    matrix = is_dense(value) and value.dtype == torch.float64 and value.ndim == 2 and value.shape[1] == len(PER_QUERY)
    return matrix and len(value) > 0 and bool(((value >= 0) & (value <= 1)).all())


def _is_identities(value: Any) -> bool:
    return is_dense(value) and value.dtype == torch.int64 and value.ndim == 1


def _is_extra(value: Any) -> bool:
    """Whether it can be the additional entries of a row: other names than those of a row, and numbers for tables."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    numbers = ("train_loss_before", "train_loss_after", "correlation_before", "lr", "images_per_second")
    return (
        not set(value) & {field.name for field in dataclasses.fields(StageLog)}
        and all(map(_is_plain, value.values()))
        and all(_is_number(value[name]) for name in numbers if name in value)
    )


_FRACTIONS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
SCORE: dict[str, Schema] = {
    **dict.fromkeys(_FRACTIONS, _is_fraction),
    "cmc": [_is_fraction],
    "queries": _is_count,
    "dropped_queries": _is_count,
    "feature": _is_text,
    "normalized": _is_bool,
    "flip": _is_bool,
    "per_query": (_is_per_query,),
    "identities": (_is_identities,),
}
ROW: dict[str, Schema] = {
    "run": _in("rri", "control"),
    "stage": _in("step0", *ROUND),
    "round": _is_count,
    "epochs": _is_count,
    "seconds": _is_positive,
    "train_loss": _is_number,
    "correlation": _is_fraction,
    "scores": [SCORE],
    "extra": _is_extra,
}
POSITION: dict[str, Schema] = {
    "run": _in("rri", "control"),
    "stage": _in("", "step0", *ROUND),
    "round": _is_count,
    "epoch": _is_count,
    "losses": [_is_number],
    "seconds": _is_positive,
    "images": _is_count,
    "lr": _is_positive,
    "steps": _is_count,
    "fused": _is_bool,
}
SUMS: dict[str, Schema] = {
    "batches": _is_count,
    "images": _is_count,
    "loss": _is_number,
    "parts": _is_parts,
    "skipped": _is_count,
    "lr": _is_positive,
    "seconds": _is_positive,
}
RANDOM: dict[str, Schema] = {
    "torch": _is_torch_state,
    "cuda": [_is_words],
    "numpy": _is_numpy_state,
    "python": _is_python_state,
}
MIDDLE: dict[str, Schema] = {"sums": SUMS, "random": RANDOM, "others": [RANDOM], "descriptors": (_is_descriptors,)}
THREADS: dict[str, Schema] = {
    "changes": [{"stage": _in("step0", *ROUND), "round": _is_count, "epoch": _is_count, "count": _is_thread_count}],
    "images_per_second": [_is_positive],
}
CONTENT: dict[str, Schema] = {
    "position": POSITION,
    "rows": [ROW],
    "optimizer": (_is_optimizer,),
    "middle": (MIDDLE,),
    "threads": THREADS,
    "objective": _is_state_dict,
    "trained": (lambda value: _is_state_dict(value) and len(value) > 0,),
    "log_lines": _is_count,
    "log_sha256": _is_text,
}
# Missing in checkpoints of earlier versions.
OPTIONAL = {
    "objective",
    "middle",
    "threads",
    "trained",
    "steps",
    "fused",
    "parts",
    "skipped",
    "log_sha256",
    "per_query",
    "identities",
}
