"""The training report, the comparison of runs and the page of a sweep in a browser: wide, narrow, dark, printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from reid.report.comparison import write_comparison
from reid.report.pages import write_page
from reid.report.sweep import render
from reid.report.training import write_report
from reid.sweep.table import Line

OpenPage = Callable[..., Any]
PAGES = ("training", "comparison", "sweep")
FIGURES = {"training": 6, "comparison": 10, "sweep": 1}


def sweep_line(name: str) -> dict[str, Any]:
    value = (0.5, 0.01)
    line = Line(name, (0, 1), 8, value, value, value, value, value, (300.0, 2.0))
    return dataclasses.asdict(line)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of synthetic runs. The comparison has long and unusual folder names, and two datasets."""
    folder = tmp_path_factory.mktemp("pages")
    names = ("plain", "a_name_much_longer_than_a_narrow_screen_is_wide_" * 2, "<b>&amp;'\"")
    runs = [
        SyntheticRun(folder / name, rounds=3, seed=i, dataset=f"dataset{i // 2}", config=f"SEED: {i}\n").write()
        for i, name in enumerate(names)
    ]
    return {
        "training": write_report(runs[0], folder / "training.html"),
        "comparison": write_comparison(runs, folder / "comparison.html"),
        "sweep": write_page(folder / "sweep.html", render([sweep_line(f"{n} {i}") for n in names for i in range(8)])),
    }


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_page_fits_the_screen(
    open_page: OpenPage, pages: dict[str, Path], tmp_path: Path, name: str, width: int
) -> None:
    visit = open_page(pages[name], width)
    assert visit.overflowing() == []
    charts = visit.shown("figure [role=img] svg")
    assert len(charts) == FIGURES[name], "each chart is visible in one of its sizes"
    for box in charts:
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["width"] >= 280 and box["height"] >= 150
    assert visit.colors(tmp_path / f"{width}.png") > 100
    assert visit.colors(tmp_path / "chart.png", "figure") > 20
    # Small labels are readable, since a chart is drawn for its width.
    sizes = visit.page.eval_on_selector_all(
        "figure [role=img] svg text",
        "texts => texts.filter(t => t.checkVisibility()).map(t => t.getBoundingClientRect().height)",
    )
    assert len(sizes) > 20 and min(sizes) > 8


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_contrast_of_text(open_page: OpenPage, pages: dict[str, Path], name: str, dark: bool) -> None:
    """At least 4.5:1, as WCAG 2.1 requires of text."""
    visit = open_page(pages[name], dark=dark)
    for summary in visit.page.query_selector_all("summary"):
        summary.click()
    ratio, text = visit.contrast()
    assert ratio >= 4.5, text
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(15, 19, 24)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("name", PAGES)
def test_print_is_light_and_complete(open_page: OpenPage, pages: dict[str, Path], name: str) -> None:
    """A4 without margins is about 680 pixels wide. Details that are closed on the screen are open in print."""
    visit = open_page(pages[name], 680, dark=True, media="print")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.contrast()[0] >= 4.5
    assert visit.overflowing() == []
    for selector in ("table", "pre") if name == "training" else ("table",):
        assert len(visit.shown(selector)) == visit.page.locator(selector).count()
    assert visit.page.pdf(format="A4").startswith(b"%PDF")


def test_details_open_by_keyboard(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["training"]).page
    assert not page.locator("#provenance").is_visible()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#provenance").is_visible()


def test_a_wide_table_scrolls_by_keyboard(open_page: OpenPage, pages: dict[str, Path]) -> None:
    page = open_page(pages["training"], 390).page
    region = page.get_by_role("region", name="Table of stages")
    region.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # Scrolling is animated.
        if page.evaluate("document.activeElement.scrollLeft") > 0:
            return
        page.wait_for_timeout(50)
    pytest.fail("the table does not scroll")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("<script>missing()</script>", "missing is not defined"),
        ("<img src='http://example.com/picture.png' alt=''>", "request: http://example.com/picture.png"),
        (
            "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
            "<link rel='stylesheet' href='http://example.com/style.css'>",
            "Content Security Policy",
        ),
    ],
    ids=["script", "request", "policy"],
)
def test_errors_of_a_page_are_found(open_page: OpenPage, tmp_path: Path, content: str, error: str) -> None:
    path = tmp_path / "bad.html"
    path.write_text(f"<!DOCTYPE html><title>bad</title>{content}")
    with pytest.raises(AssertionError, match=error):
        open_page(path)


def test_an_unreadable_page_is_found(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><title>bad</title><p>fine<p style='color: #aaa'>pale<div style='width: 2000px'>.</div>"
    )
    visit = open_page(path, 390)
    assert len(visit.overflowing()) == 1
    ratio, text = visit.contrast()
    assert text == "pale" and 2.2 < ratio < 2.4  # The contrast of #aaa on white is 2.32.
    path.write_text("<!DOCTYPE html><title>blank</title>")
    assert open_page(path).colors(tmp_path / "blank.png") == 1
