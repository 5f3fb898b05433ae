"""Grids of configuration overrides, such as `"MODEL.POOLING.NAME=gem,netvlad RRI.CONTROL=True"`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from reid.errors import InputError

Setting = tuple[tuple[str, str], ...]  # Keys and values, in the order given.
MAX_SETTINGS = 10_000
RESERVED = {"SEED": "--seeds", "OUTPUT_DIR": "--output"}  # Set by the sweep; key and the option that varies it.


def parse_grids(grids: Sequence[str]) -> list[Setting]:
    """Enumerate all combinations of the values of each grid.

    Args:
        grids: Texts of the form `KEY=VALUE,VALUE KEY=VALUE`. Commas and spaces inside brackets belong to the value
            (`STEP0.LR=[1e-3]`).

    Returns:
        The settings of one grid after the other, without duplicates. Without grids, one empty setting.

    Raises:
        InputError: If a grid is malformed, repeats a key, or sets a key that the sweep sets, or there are more than
            10,000 settings.
    """
    settings: list[Setting] = []
    for grid in grids or [""]:
        axes = [_axis(part, grid) for part in _split(grid, " ") if part]
        keys = [key for key, _ in axes]
        if len(set(keys)) < len(keys):
            raise InputError(f"--grid {grid!r}: {next(k for k in keys if keys.count(k) > 1)} is given twice")
        if len(settings) + math.prod(len(values) for _, values in axes) > MAX_SETTINGS:
            raise InputError(f"--grid {grid!r}: more than {MAX_SETTINGS:,} settings")
        combinations = itertools.product(*(values for _, values in axes))
        settings += [tuple(zip(keys, values, strict=True)) for values in combinations]
    return list(dict.fromkeys(settings))


def setting_name(setting: Setting) -> str:
    """Give a setting a short name.

    Args:
        setting: Keys and values.

    Returns:
        The last parts of the keys with the values, such as `NAME=gem,CONTROL=True`; "default" for an empty setting.
    """
    return ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in setting) or "default"


def _axis(part: str, grid: str) -> tuple[str, list[str]]:
    """The key and the values of `KEY=VALUE,VALUE`."""
    key, equals, text = part.partition("=")
    values = [value.strip() for value in _split(text, ",")]
    if not equals or not key or not all(values):
        raise InputError(f"--grid {grid!r}: {part!r} is not of the form KEY=VALUE,VALUE")
    if key in RESERVED:
        raise InputError(f"--grid {grid!r}: the sweep sets {key} itself; vary it by {RESERVED[key]}")
    return key, values


def _split(text: str, separator: str) -> list[str]:
    """Split at every separator outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
