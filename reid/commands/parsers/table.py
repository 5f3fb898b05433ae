"""The arguments of all commands in `docs/commands.md`; `python -m reid.commands.parsers.table` writes them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from reid.commands.parsers import EXAMPLES, PARSERS

PAGE = Path("docs/commands.md")
_BEGIN, _END = "<!-- commands: begin -->", "<!-- commands: end -->"


def markdown() -> str:
    """Render a section per command: what it does, its arguments and an example.

    Returns:
        Markdown text.
    """
    return "\n\n".join(_section(name, make_parser()) for name, make_parser in PARSERS.items())


def updated(page: str) -> str:
    """Replace the sections of the page.

    Args:
        page: Text of `docs/commands.md`.

    Returns:
        The text with the commands of this version between its two markers.
    """
    head, rest = page.split(_BEGIN)
    return f"{head}{_BEGIN}\n\n{markdown()}\n\n{_END}{rest.split(_END)[1]}"


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    # argparse has no public list of arguments.
    actions = sorted((a for a in parser._actions if a.dest != "help"), key=lambda action: bool(action.option_strings))
    rows = [f"| {_words(action)} | {_meaning(action)} |" for action in actions]
    meaning = " ".join((parser.description or "").split())
    head = [f"## {name}", "", meaning, "", "| argument | meaning |", "|---|---|"]
    return "\n".join([*head, *rows, "", f"    svdnet {name} {EXAMPLES[name]}"])


def _words(action: argparse.Action) -> str:
    """What to type, such as "`--top K`"."""
    names = action.option_strings
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "" if action.nargs == 0 else metavar + (" ..." if action.nargs in ("+", "*") else "")
    if not names or not value:
        return ", ".join(f"`{name}`" for name in names or [value])
    return ", ".join(f"`{name} {value}`" for name in names)


def _meaning(action: argparse.Action) -> str:
    text = " ".join((action.help or "").split()).replace("%%", "%")
    text = re.sub(r"([|<*_])", r"\\\1", text)
    choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
    required = "Required. " if action.required and action.option_strings else ""
    return f"{required}{text}{f' One of {choices}.' if choices else ''}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
