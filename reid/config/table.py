"""The table of all keys in `docs/configuration.md`; `python -m reid.config.table` writes it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from reid.config.declaration import Key
from reid.config.keys import KEYS, STAGES

PAGE = Path("docs/configuration.md")
MARK = r" \*"  # of keys that may change when a run is resumed
_BEGIN, _END = "<!-- keys: begin -->", "<!-- keys: end -->"


def markdown() -> str:
    """Render one table per section; the stages share one.

    Returns:
        Markdown text.
    """
    sections: dict[str, dict[str, Key]] = {}
    for name, key in KEYS.items():
        section, _, rest = name.partition(".") if "." in name else ("", "", name)
        sections.setdefault(section, {})[rest] = key
    tables = []
    for section, keys in sections.items():
        if section == STAGES[0]:
            shared = {rest: [sections[stage][rest] for stage in STAGES] for rest in keys if rest in sections[STAGES[1]]}
            rows = [_row(f"STAGE.{rest}", key, shared[rest]) for rest, key in keys.items() if rest in shared]
            rows += [_row(f"{section}.{rest}", key, [key]) for rest, key in keys.items() if rest not in shared]
            tables.append(_table(", ".join(STAGES), rows))
        elif section not in STAGES:
            rows = [_row(f"{section}.{rest}" if section else rest, key, [key]) for rest, key in keys.items()]
            tables.append(_table(section or "General", rows))
    return "\n\n".join(tables)


def plain(width: int = 80) -> str:
    """Render the keys for a terminal.

    Args:
        width: Characters in a line.

    Returns:
        A line with the name and the default of each key, and below it the meaning and the permitted values.
    """
    lines = []
    for name, key in KEYS.items():
        values = ", ".join(key.values) or key.limits
        meaning = f"{key.help} [{values}]" if values else key.help
        lines.append(f"{name} {_default(key).strip('`')}")
        lines += textwrap.wrap(meaning.replace("`", ""), width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def updated(page: str) -> str:
    """Replace the tables of the page.

    Args:
        page: Text of `docs/configuration.md`.

    Returns:
        The text with the tables of this version between its two markers.
    """
    head, rest = page.split(_BEGIN)
    return f"{head}{_BEGIN}\n\n{markdown()}\n\n{_END}{rest.split(_END)[1]}"


def _table(title: str, rows: list[str]) -> str:
    return "\n".join([f"## {title}", "", "| key | default | values | meaning |", "|---|---|---|---|", *rows])


def _row(name: str, key: Key, declarations: list[Key]) -> str:
    """One line; `declarations` are those of the key in each section that shares it."""
    defaults = [_default(declaration) for declaration in declarations]
    default = defaults[0] if len(set(defaults)) == 1 else " / ".join(defaults)
    values = ", ".join(f"`{value}`" for value in key.values) or key.limits
    return f"| `{name}` | {default} | {values} | {key.help}{MARK if key.movable else ''} |"


def _default(key: Key) -> str:
    if isinstance(key.default, str):
        return f"`{key.default}`" if key.default else "empty"
    value = list(key.default) if isinstance(key.default, tuple) else key.default
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
