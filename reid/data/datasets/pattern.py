"""Where in a path identity and camera stand, said by a pattern such as `{identity}/cam{camera}_*`.

A pattern is matched with the whole path of an image below the root, folders divided by `/`, without the ending of its
file name:

| in the pattern | in the path |
|---|---|
| `{identity}`, `{camera}` | the shortest text up to the first place where what follows fits; before `*` a number |
| `{identity:4}` | exactly four characters |
| `*` | any text, or none, within one folder or file name |
| `**/` | any number of folders, or none; once |
| anything else | itself |

There is nothing in it that could be tried in exponentially many ways: each part takes the first place that fits and
keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reid.data.datasets.layout import IMAGE_SUFFIXES
from reid.errors import InputError

FIELDS = ("identity", "camera")
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<folders>\*\*/)|(?P<any>\*)|(?P<literal>[^{}*]+|[{}])")


def compile_pattern(pattern: str, fields: Sequence[str] = FIELDS, setting: str = "DATASETS.PATTERN") -> re.Pattern[str]:
    """A regular expression with the group `identity`, and `camera` where the pattern has it, for `fullmatch`.

    fields: other names that may stand in braces; where these are not the usual two, any one of them will do. setting:
    what errors call the pattern. Raises `InputError` for a pattern that is empty, without identity, or not of the form
    above.
    """
    try:
        return _compile(pattern, fields)
    except _Wrong as error:
        raise InputError(
            f"{setting} {pattern!r} {error}. Such are {{identity}}/cam{{camera}}_* or {{identity}}_c{{camera}}*"
        ) from None


class _Wrong(ValueError):
    """What is wrong with a pattern."""


def _compile(pattern: str, fields: Sequence[str]) -> re.Pattern[str]:
    if not pattern:
        raise _Wrong("says nothing; it must say where in a path the identity stands")
    if pattern.startswith("/"):
        raise _Wrong("begins with /, but is matched with paths below the root: leave the / out")
    if pattern.lower().endswith(IMAGE_SUFFIXES):
        raise _Wrong("ends like a file name, but is matched without that ending: leave it out")
    tokens = list(_TOKEN.finditer(pattern))
    expression, inside, opened, seen = "", False, False, set[str]()
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        if token["literal"]:
            if token["literal"] in "{}":
                raise _Wrong("has a brace without its other half")
            expression, opened = expression + re.escape(token["literal"]), False
            continue
        if token["folders"]:
            if expression.endswith(_FOLDERS) or _FOLDERS in expression:
                raise _Wrong("has **/ twice")
            if place and not tokens[place - 1][0].endswith("/"):
                raise _Wrong("has **/ in the middle of a name; it stands for whole folders")
            expression, inside, opened = expression + (")" if inside else "") + _FOLDERS, False, False
            continue
        name, _, width = (token["field"] or "").partition(":")
        if token["field"] is not None:
            if name not in fields:
                raise _Wrong(f"has {token[0]}; a field is {' or '.join(f'{{{field}}}' for field in fields)}")
            if name in seen:
                raise _Wrong(f"has {{{name}}} twice; let * stand for one of them")
            seen.add(name)
        if width or ":" in token[0]:
            if not re.fullmatch(r"[1-9][0-9]?", width):
                raise _Wrong(f"has {token[0]}; the width of a field is a number from 1 to 99")
            expression, opened = f"{expression}(?P<{name}>[^/]{{{width}}})", False
        elif name and following is not None and following["any"]:
            expression, opened = f"{expression}(?P<{name}>[0-9]++)", False
        else:
            if opened:
                raise _Wrong(f"has nothing between {tokens[place - 1][0]} and {token[0]} to tell them apart")
            # Atomic: what is found up to the next open part is kept, so that none is tried again and again.
            text = f"(?P<{name}>[^/]+?)" if name else "[^/]*?"
            expression, inside, opened = f"{expression}{')' if inside else ''}(?>{text}", True, True
    if tuple(fields) == FIELDS and "identity" not in seen:
        raise _Wrong("has no {identity}")
    if not seen:
        raise _Wrong("has no field in braces")
    return re.compile(expression + (r"\Z)" if inside else ""))


_FOLDERS = "(?:[^/]+/)*?"
