"""Plain data out of JSON and YAML: mappings, lists, texts, numbers, within bounds and without anything being executed.

A short text can stand for very much: lists within lists until the stack ends, a YAML alias of an alias that unfolds to
more values than any memory holds. What passes here can be walked through without a second thought.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_JSON_VALUES = 10_000_000
MAX_YAML_CHARACTERS = 2**18
MAX_YAML_VALUES = 20_000
_WIDEST = 2**63


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, in one line, for a broken one and one beyond the bounds."""
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    _check_bounds(tree, MAX_JSON_VALUES)
    return tree


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, of the kinds that YAML itself has. Raises ValueError as `plain_json` does."""
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"{len(text):,} letters, above the limit of {MAX_YAML_CHARACTERS:,}")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    # A tag with a value it does not go with, such as `!!int x`, fails in the library in as many ways as there are tags.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"no valid YAML: a value does not fit its tag ({type(error).__name__})") from None
    _check_bounds(tree, MAX_YAML_VALUES)
    return tree


def _check_bounds(tree: Any, most: int) -> None:
    """What several places share counts at each of them, as whoever walks through it meets it there."""
    pending, seen = [(tree, 0)], 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if seen > most:
            raise ValueError(f"more than {most:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, int) and not -_WIDEST <= value < _WIDEST:
            raise ValueError("an integer of more than 64 bits")
        if isinstance(value, dict):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set):
            pending += [(item, depth + 1) for item in value]


def flatten(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, each under its dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
