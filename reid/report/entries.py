"""What a line of `log.jsonl`, a row of `scores.json` and a section of `config.yaml` must be to be shown on a page.

A file that a crash, an editor or somebody else has left may hold any JSON; what passes here is counted with and drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

STAGES = ("step0", "decorrelate", "restraint", "relaxation")
RUNS = ("rri", "control")
LARGEST = 1e12
MOST = 1_000_000

Test = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """A number that can be drawn, or NaN."""
    return type(value) in (int, float) and (value != value or abs(value) <= LARGEST)


def is_loss(value: Any) -> bool:
    """A number, or infinity where the training has diverged."""
    return is_number(value) or value in (math.inf, -math.inf)


def is_fraction(value: Any) -> bool:
    """A score."""
    return type(value) in (int, float) and 0 <= value <= 1


def is_count(value: Any) -> bool:
    """A whole number from 0 on."""
    return type(value) is int and 0 <= value <= MOST


def is_score(value: Any) -> bool:
    """A SCORE of `scores.json`."""
    return _holds(value, SCORE) and all(is_count(value.get(name, 0)) for name in ("queries", "dropped_queries"))


def is_entry(entry: Any) -> bool:
    """Whether a line of the log is of a kind that is shown, with all that it needs."""
    kind = entry.get("kind") if isinstance(entry, dict) else None
    return isinstance(kind, str) and kind in KINDS and _holds(entry, KINDS[kind])


def is_row(row: Any) -> bool:
    """Whether a ROW of `scores.json` holds all that it needs."""
    return _holds(row, KINDS["stage"])


def mistake_in(config: dict[Any, Any]) -> str:
    """What in a configuration cannot be shown; empty where all of it can."""
    for name, tests in SECTIONS.items():
        section = config.get(name)
        if section is not None and not isinstance(section, dict):
            return f"{name} is a section, not a value"
        for key, test in tests.items():
            if section and key in section and not test(section[key]):
                return f"{name}.{key} cannot be {str(section[key])[:40]!r}"
    return ""


def _holds(value: Any, needed: dict[str, Test]) -> bool:
    return isinstance(value, dict) and all(
        test(value[name]) if name in value else name in OPTIONAL for name, test in needed.items()
    )


def _in(*names: str) -> Test:
    return lambda value: isinstance(value, str) and value in names


def _list_of(test: Test) -> Test:
    return lambda value: isinstance(value, list) and len(value) <= MOST and all(map(test, value))


def _map_of(test: Test) -> Test:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _is(*kinds: type) -> Test:
    return lambda value: isinstance(value, kinds)


SCORE: dict[str, Test] = {
    **{name: is_fraction for name in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")},
    "feature": _is(str),
    "normalized": _is(bool),
    "flip": _is(bool),
}
PLACE: dict[str, Test] = {"run": _in(*RUNS), "stage": _in(*STAGES), "round": is_count}
SPECTRUM = _list_of(lambda value: is_number(value) and value >= 0)
# Of each kind of line what it must hold; what stands in OPTIONAL may be missing.
KINDS: dict[Any, dict[str, Test]] = {
    "start": {"machine": _is(dict, type(None)), "versions": _is(dict, type(None))},
    "epoch": {**PLACE, "epoch": is_count, "loss": is_loss, "correlation": is_number},
    "stage": {
        **PLACE,
        "epochs": is_count,
        "seconds": is_number,
        "train_loss": is_loss,
        "correlation": is_number,
        "scores": _list_of(is_score),
        "train_loss_before": is_loss,
        "train_loss_after": is_loss,
        "spectrum_before": SPECTRUM,
        "spectrum_after": SPECTRUM,
        "cmc": _map_of(_list_of(is_fraction)),
    },
    "final": {"run": _in(*RUNS), "scores": _list_of(is_score)},
}
OPTIONAL = {
    *("machine", "versions", "train_loss_before", "train_loss_after", "spectrum_before", "spectrum_after", "cmc"),
    *("mAP_trapezoid", "mINP", "rank5", "rank10"),
}
SECTIONS: dict[str, dict[str, Test]] = {
    "MODEL": {},
    "TEST": {},
    "INPUT": {"SIZE": _list_of(_is(int, float, str))},
    "RRI": {"TOLERANCE": is_number, "PATIENCE": is_count},
}
