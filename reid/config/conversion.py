"""Conversion of a value from YAML or the command line to the type of its key."""

from __future__ import annotations

import ast
import math
import reprlib
from typing import Any

from reid.config.declaration import Key

MAX_CHARACTERS = 4096  # of a string; no path is longer
_TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}


def convert(value: Any, key: Key) -> Any:
    """Convert a value to the type of a key's default.

    Args:
        value: Value from YAML, or the string of an override. A single value may stand for a list.
        key: Declaration of the key.

    Returns:
        The converted value; a list where the default is a tuple.

    Raises:
        TypeError: If the value does not have the type; the message continues a sentence that begins with the key.
    """
    if isinstance(value, bool) and {"on", "off"} <= set(key.choices):
        value = "on" if value else "off"  # YAML reads these words as booleans
    if not isinstance(key.default, tuple):
        return _convert(value, type(key.default))
    if isinstance(value, str):
        value = _literal(value)
    items = list(value) if isinstance(value, list | tuple) else [value]
    return [_convert(item, type(key.default[0]) if key.default else str) for item in items]


def _convert(value: Any, kind: type) -> Any:
    if kind is str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise TypeError(f"must be a string, not {reprlib.repr(value)}")
        if len(str(value)) > MAX_CHARACTERS:
            raise TypeError(f"must be a string of at most {MAX_CHARACTERS:,} characters")
        return str(value)
    if isinstance(value, str):
        value = _literal(value)  # an override; or 1e-3, which YAML reads as a string
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise TypeError(f"must be {_TYPE_NAMES[kind]} of no more than 64 bits")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"must be {_TYPE_NAMES[kind]}, not {reprlib.repr(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"must be a finite number, not {value}")
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
