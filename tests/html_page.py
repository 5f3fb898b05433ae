"""A parser that reads a page without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

Attributes = dict[str, Any]


class Page(HTMLParser):
    """Tables by id as rows of cells, the text of headings and paragraphs by id, all text, and all tags."""

    def __init__(self, source: Path | str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self.tags: list[tuple[str, Attributes]] = []
        self.text = ""
        self._table = self._id = ""
        self._cell = self._hidden = False
        self.source = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        self._hidden = tag in ("style", "script")
        if tag == "table":
            self._table = named["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._cell = True
        elif tag in ("p", "b", "h1"):
            self._id = named.get("id") or ("h1" if tag == "h1" else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        if tag in ("td", "th"):
            self._cell = False
        elif tag in ("p", "b", "h1"):
            self._id = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data
        if self._cell:
            self.tables[self._table][-1][-1] += data
        elif self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + " ".join(data.split())

    def find(self, tag: str, **attributes: str) -> list[Attributes]:
        """The attributes of all tags of one name with the given attributes."""
        return [named for t, named in self.tags if t == tag and all(named.get(k) == v for k, v in attributes.items())]

    @property
    def words(self) -> str:
        """All text outside of style and script, with single spaces."""
        return " ".join(self.text.split())

    @property
    def charts(self) -> list[str]:
        return re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"
