"""What is varied: `"MODEL.POOLING.NAME=gem,netvlad RRI.CONTROL=True"` stands for two sets of overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from reid.errors import InputError

Setting = tuple[tuple[str, str], ...]  # keys and values, in the order they were given
MOST = 10_000
OWN = {"SEED": "--seeds", "OUTPUT_DIR": "--output"}  # what a sweep sets itself


def parse_grids(grids: Sequence[str]) -> list[Setting]:
    """Every combination of the values of each grid, one grid after the other, doubles left out; of none: one empty one.

    A grid is `KEY=VALUE,VALUE KEY=VALUE`, with commas inside brackets belonging to the value (`STEP0.LR=[1e-3]`).
    Raises InputError for a part that is not of this form, a key that a grid names twice, a key of OWN, and more than
    10,000 settings.
    """
    settings: list[Setting] = []
    for grid in grids or [""]:
        axes = [_axis(part, grid) for part in _split(grid, " ") if part]
        keys = [key for key, _ in axes]
        if len(set(keys)) < len(keys):
            raise InputError(f"--grid {grid!r}: {next(k for k in keys if keys.count(k) > 1)} stands there twice")
        if len(settings) + math.prod(len(values) for _, values in axes) > MOST:
            raise InputError(f"--grid {grid!r}: more than {MOST:,} settings")
        values = itertools.product(*(values for _, values in axes))
        settings += [tuple(zip(keys, chosen, strict=True)) for chosen in values]
    return list(dict.fromkeys(settings))


def setting_name(setting: Setting) -> str:
    """A short name such as `NAME=gem,CONTROL=True`: the last parts of the keys; "default" of an empty setting."""
    return ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in setting) or "default"


def _axis(part: str, grid: str) -> tuple[str, list[str]]:
    key, equals, values = part.partition("=")
    chosen = [value.strip() for value in _split(values, ",")]
    if not equals or not key or not all(chosen):
        raise InputError(f"--grid {grid!r}: {part!r} is not of the form KEY=VALUE,VALUE")
    if key in OWN:
        raise InputError(f"--grid {grid!r}: a sweep sets {key} itself; vary it by {OWN[key]}")
    return key, chosen


def _split(text: str, separator: str) -> list[str]:
    """`text` at every separator outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
