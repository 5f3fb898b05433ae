"""What a page tells, for tests that read one without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tables by id, the text of other elements with an id, and every tag with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._table = self._id = ""
        self._cell = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
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
        if tag in ("td", "th"):
            self._cell = False
        elif tag in ("p", "b", "h1"):
            self._id = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[self._table][-1][-1] += data
        elif self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + " ".join(data.split())

    @property
    def charts(self) -> list[str]:
        return re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"
