"""Validation of lines of `log.jsonl`, rows of `scores.json` and sections of `config.yaml` before they are shown.

These files may have been cut off by a crash or edited, and may hold any JSON. Values that pass can be summed and drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from reid.records import PER_QUERY

STAGES = ("step0", "decorrelate", "restraint", "relaxation")
RUNS = ("rri", "control")
MAX_NUMBER = 1e12
MAX_COUNT = 1_000_000

Check = Callable[[Any], bool]


def is_entry(entry: Any) -> bool:
    """Check a line of the log.

    Args:
        entry: Decoded JSON of any type.

    Returns:
        Whether its kind is known and it holds all that this kind needs.
    """
    kind = entry.get("kind") if isinstance(entry, dict) else None
    return isinstance(kind, str) and kind in KINDS and _holds(entry, KINDS[kind]) and _has_both_losses(entry)


def is_row(row: Any) -> bool:
    """Check a row of `scores.json`.

    Args:
        row: Decoded JSON of any type.

    Returns:
        Whether it holds all that a row needs.
    """
    return _holds(row, KINDS["stage"]) and _has_both_losses(row)


def is_variant(value: Any) -> bool:
    """Check what names the kind of a score.

    Args:
        value: Decoded JSON of any type.

    Returns:
        Whether it holds a feature, whether its rows are divided by their length, and whether images are flipped too.
    """
    return _holds(value, VARIANT)


def is_difference(value: Any) -> bool:
    """Check "difference" of `scores.json`.

    Args:
        value: Decoded JSON of any type.

    Returns:
        Whether it is None, or holds a difference with its interval for every measure.
    """
    return value is None or _holds(value, dict.fromkeys(PER_QUERY, _is_interval))


def is_score(value: Any) -> bool:
    """Check a score in a row of `scores.json` or in `evaluation.json`.

    Args:
        value: Decoded JSON of any type.

    Returns:
        Whether it names its kind, and all measures that it holds are fractions, rank-1 and mAP among them.
    """
    return _holds(value, SCORE) and all(_is_count(value.get(name, 0)) for name in ("queries", "dropped_queries"))


def is_examples(value: Any) -> bool:
    """Check the content of `examples.json`.

    Args:
        value: Decoded JSON of any type.

    Returns:
        Whether it holds the counts, the names of two networks, and the results of queries with both.
    """
    return _holds(value, EXAMPLES) and len(value["names"]) == 2


def config_error(config: dict[Any, Any]) -> str:
    """Find a value in a configuration that cannot be shown.

    Args:
        config: Content of `config.yaml`.

    Returns:
        What is wrong, or an empty string.
    """
    for name, checks in SECTIONS.items():
        section = config.get(name)
        if section is not None and not isinstance(section, dict):
            return f"{name} must be a section, not a value"
        for key, check in checks.items():
            if section and key in section and not check(section[key]):
                return f"{name}.{key} cannot be {str(section[key])[:40]!r}"
    return ""


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be drawn, or NaN."""
    return type(value) in (int, float) and (value != value or abs(value) <= MAX_NUMBER)


def _is_loss(value: Any) -> bool:
    """Whether it is a number, or infinity where training has diverged."""
    return _is_number(value) or value in (math.inf, -math.inf)


def _is_fraction(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_interval(value: Any) -> bool:
    return _list_of(_is_number)(value) and len(value) == 3


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _holds(value: Any, required: dict[str, Check]) -> bool:
    return isinstance(value, dict) and all(
        check(value[name]) if name in value else name in OPTIONAL for name, check in required.items()
    )


def _has_both_losses(entry: dict[str, Any]) -> bool:
    """Whether the losses before and after a replacement are both there, or neither."""
    return ("train_loss_before" in entry) == ("train_loss_after" in entry)


def _in(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= MAX_COUNT and all(map(check, value))


def _map_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds)


VARIANT: dict[str, Check] = {"feature": _is(str), "normalized": _is(bool), "flip": _is(bool)}
SCORE = {name: _is_fraction for name in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")} | VARIANT
STAGE: dict[str, Check] = {"run": _in(*RUNS), "stage": _in(*STAGES), "round": _is_count}
SPECTRUM = _list_of(lambda value: _is_number(value) and value >= 0)
# Keys that each kind of line must have, except for those in OPTIONAL.
KINDS: dict[Any, dict[str, Check]] = {
    "start": {"machine": _is(dict, type(None)), "versions": _is(dict, type(None))},
    "epoch": {**STAGE, "epoch": _is_count, "loss": _is_loss, "correlation": _is_number},
    "stage": {
        **STAGE,
        "epochs": _is_count,
        "seconds": _is_number,
        "train_loss": _is_loss,
        "correlation": _is_number,
        "scores": _list_of(is_score),
        "train_loss_before": _is_loss,
        "train_loss_after": _is_loss,
        "spectrum_before": SPECTRUM,
        "spectrum_after": SPECTRUM,
        "cmc": _map_of(_list_of(_is_fraction)),
    },
    "final": {"run": _in(*RUNS), "scores": _list_of(is_score)},
}
ANSWER: dict[str, Check] = {
    **{name: _is_count for name in ("rank", "camera")},
    "identity": _is(int),
    "path": _is(str),
    "distance": _is_number,
    "right": _is(bool),
}
SIDE: dict[str, Check] = {
    "first_hit": _is_count,
    "average_precision": _is_fraction,
    "answers": _list_of(lambda value: _holds(value, ANSWER)),
}
EXAMPLES: dict[str, Check] = {
    **{name: _is_count for name in ("queries", "repaired", "broken")},
    "names": _list_of(_is(str)),
    "lists": _list_of(
        lambda value: _holds(
            value,
            {
                **{name: _is_count for name in ("query", "camera", "matches")},
                "identity": _is(int),
                "path": _is(str),
                "difference": _is_number,
                "change": _in("repaired", "broken"),
                "sides": lambda sides: _list_of(lambda side: _holds(side, SIDE))(sides) and len(sides) == 2,
            },
        )
    ),
}
OPTIONAL = {
    *("machine", "versions", "train_loss_before", "train_loss_after", "spectrum_before", "spectrum_after", "cmc"),
    *("mAP_trapezoid", "mINP", "rank5", "rank10"),
}
SECTIONS: dict[str, dict[str, Check]] = {
    "MODEL": {},
    "TEST": {name.upper(): check for name, check in VARIANT.items()},
    "INPUT": {"SIZE": _list_of(_is(int, float, str))},
    "RRI": {"TOLERANCE": _is_number, "PATIENCE": _is_count},
}
