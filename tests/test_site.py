"""The documentation site has every page, public module and command, and no broken link; `make docs` builds it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

import reid
from reid.commands.parsers import table

ROOT = Path(__file__).parents[1]
HOOKS: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", *(ROOT / path for path in HOOKS["OUTSIDE"])]
LINK = re.compile(r"!?\[[^\]]*\]\(((?!\w+:)[^)#\s]*)(?:#([^)\s]*))?\)")


def text_of(page: Path) -> str:
    """The text of a page without code, which may look like a link."""
    return re.sub(r"^    .*$|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page that lead nowhere in a clone."""
    broken = []
    for target, anchor in LINK.findall(text_of(page)):
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}")
    return broken


def entries(nav: list[dict[str, Any]]) -> list[str]:
    """The pages of `nav` in `mkdocs.yml`."""
    values = [value for entry in nav for value in entry.values()]
    return [page for value in values for page in ([value] if isinstance(value, str) else entries(value))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b, c\n[1](#a-b-c) [2](#d) [3](other.md) [4](https://example.org) `[5](code)`\n")
    assert broken_links(page) == ["#d", "other.md#"]


def test_every_page_is_in_the_contents_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    own = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert sorted(entries(site["nav"])) == sorted([*own, *HOOKS["OUTSIDE"].values(), *HOOKS["api_pages"]()])


def test_every_public_module_and_name_of_reid_is_in_the_reference_once() -> None:
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "reid").rglob("*.py")]
    names = [path.parts[:-1] if path.name == "__init__" else path.parts for path in files]
    public = [".".join(parts) for parts in names if not any(part.startswith("_") for part in parts)]
    shown = re.findall(r"^::: (\S+)$", "\n".join(HOOKS["api_pages"]().values()), re.MULTILINE)
    assert sorted(shown) == sorted([*public, *(f"reid.{name}" for name in reid.__all__)])


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](method.md#the-control)", "[a](method.md#the-control)"),
        ("[a](../CONTRIBUTING.md#style)", "[a](contributing.md#style)"),
        ("[a](../reid/data/datasets/pattern.py)", "[a](api/data.md#reid.data.datasets.pattern)"),
        ("[a](../reid/ranking/__init__.py)", "[a](api/ranking.md#reid.ranking)"),
        ("[MIT](../LICENSE)", "MIT"),
        ("[a](../missing.md)", "[a](../missing.md)"),
    ],
)
def test_links_are_changed_for_the_site(link: str, expected: str) -> None:
    assert HOOKS["rewritten"](link, "use.md") == expected


def test_links_of_pages_outside_docs_are_changed_for_the_site() -> None:
    assert HOOKS["rewritten"]("[a](../docs/ranking.md)", "datasets.md") == "[a](ranking.md)"
    assert HOOKS["rewritten"]("Pages\n- one\n- two\n", "changelog.md") == "Pages\n\n- one\n- two\n"


def test_page_of_commands_is_that_of_the_parsers() -> None:
    page = (ROOT / table.PAGE).read_text(encoding="utf-8")
    assert page == table.updated(page), "out of date: run `make docs`"
