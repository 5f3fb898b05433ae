"""Patterns for the identity and camera in a path, such as `{identity}/cam{camera}_*`.

A pattern is matched with the whole path of an image below the root, with `/` between folders and without the suffix of
the file name:

| pattern | matches |
|---|---|
| `{identity}`, `{camera}` | the shortest string up to the first position where the rest matches; before `*` a number |
| `{identity:4}` | exactly four characters |
| `{camera/2}`, `{camera:3/2}` | a number: 1 and 2 are camera 1, 3 and 4 are camera 2, and so on |
| `*` | any string, including the empty one, within one folder or file name |
| `**/` | any number of folders, including none; only once |
| anything else | itself |

Matching never takes exponential time: each part takes the first position that matches and keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reid.errors import InputError
from reid.io.image_files import IMAGE_SUFFIXES

FIELDS = ("identity", "camera")
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<folders>\*\*/)|(?P<any>\*)|(?P<literal>[^{}*]+|[{}])")


@dataclass(frozen=True)
class PathPattern:
    """A compiled pattern.

    Attributes:
        expression: Regular expression with one group per field.
        step: How many consecutive numbers in `{camera}` are one camera; 0 if it is the camera itself.
    """

    expression: re.Pattern[str]
    step: int = 0

    def fullmatch(self, path: str) -> dict[str, str] | None:
        """Match a path.

        Args:
            path: Path below the root, without the suffix of the file name.

        Returns:
            Field -> the string at its place; None if the path does not match.
        """
        match = self.expression.fullmatch(path)
        if match is None:
            return None
        fields = match.groupdict()
        if self.step:
            fields["camera"] = str((int(fields["camera"]) - 1) // self.step + 1)
        return fields


def compile_pattern(pattern: str, fields: Sequence[str] = FIELDS, setting: str = "DATASETS.PATTERN") -> PathPattern:
    """Compile a pattern.

    Args:
        pattern: File name pattern such as `{identity}_c{camera}_*`, see the module.
        fields: Names allowed in braces. With the default ones, `{identity}` is required, else any one of them.
        setting: Name of the pattern in error messages.

    Returns:
        The compiled pattern, for `fullmatch`.

    Raises:
        InputError: If the pattern is empty, lacks a required field, or has a different form.
    """
    try:
        return _compile(pattern, fields)
    except _PatternError as error:
        raise InputError(
            f"{setting} {pattern!r} {error}. Examples: {{identity}}/cam{{camera}}_* or {{identity}}_c{{camera}}*"
        ) from None


class _PatternError(ValueError):
    """An invalid pattern; the message continues a sentence about it."""


def _compile(pattern: str, fields: Sequence[str]) -> PathPattern:
    if not pattern:
        raise _PatternError("is empty; it must contain a field such as {identity}")
    if pattern.startswith("/"):
        raise _PatternError("begins with /, but is matched with paths below the root: remove the /")
    if pattern.lower().endswith(IMAGE_SUFFIXES):
        raise _PatternError("ends with the suffix of a file name, but is matched without it: remove the suffix")
    tokens = list(_TOKEN.finditer(pattern))
    expression, in_group, unbounded, seen, step = "", False, False, set[str](), 0
    for position, token in enumerate(tokens):
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        if token["literal"]:
            if token["literal"] in "{}":
                raise _PatternError("has an unbalanced brace")
            expression, unbounded = expression + re.escape(token["literal"]), False
            continue
        if token["folders"]:
            if expression.endswith(_FOLDERS) or _FOLDERS in expression:
                raise _PatternError("has **/ twice")
            if position and not tokens[position - 1][0].endswith("/"):
                raise _PatternError("has **/ within a name; it matches whole folders")
            expression, in_group, unbounded = expression + (")" if in_group else "") + _FOLDERS, False, False
            continue
        field, slash, size = (token["field"] or "").partition("/")
        name, _, width = field.partition(":")
        if token["field"] is not None:
            if name not in fields:
                raise _PatternError(f"has {token[0]}; a field is {' or '.join(f'{{{field}}}' for field in fields)}")
            if name in seen:
                raise _PatternError(f"has {{{name}}} twice; use * for one of them")
            seen.add(name)
        if ":" in field and not re.fullmatch(r"[1-9][0-9]?", width):
            raise _PatternError(f"has {token[0]}; the width of a field is a number from 1 to 99")
        if slash:
            step = _step(name, size, token[0])
        if width and not slash:
            expression, unbounded = f"{expression}(?P<{name}>[^/]{{{width}}})", False
        elif slash and (width or not unbounded):
            number = f"(?!0{{{width}}})[0-9]{{{width}}}" if width else "(?!0+(?![0-9]))[0-9]{1,18}+"
            expression, unbounded = f"{expression}(?P<{name}>{number})", False
        elif name and following is not None and following["any"]:
            expression, unbounded = f"{expression}(?P<{name}>[0-9]++)", False
        else:
            if unbounded:
                raise _PatternError(f"has no text between {tokens[position - 1][0]} and {token[0]} to separate them")
            # Atomic: a match up to the next unbounded part is kept and never tried again.
            text = f"(?P<{name}>[^/]+?)" if name else "[^/]*?"
            expression, in_group, unbounded = f"{expression}{')' if in_group else ''}(?>{text}", True, True
    if tuple(fields) == FIELDS and "identity" not in seen:
        raise _PatternError("has no {identity}")
    if not seen:
        raise _PatternError("has no field in braces")
    return PathPattern(re.compile(expression + (r"\Z)" if in_group else "")), step)


def _step(name: str, size: str, field: str) -> int:
    if name != "camera" or not re.fullmatch(r"[1-9][0-9]{0,5}", size):
        raise _PatternError(
            f"has {field}; write {{camera/2}} or {{camera:3/2}} where each 2 consecutive numbers are one camera"
        )
    return int(size)


_FOLDERS = "(?:[^/]+/)*?"
