"""The page of ranked lists in a browser: filters, sorting, keyboard, print, two widths and both color schemes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid.diagnostics.retrieval import CheckpointFeatures, describe_retrieval
from reid.records import Features
from reid.report.pages import write_page
from reid.report.ranked_lists import render

OpenPage = Callable[..., Any]
SHOWN = "[...document.querySelectorAll('.query')].filter(e => e.checkVisibility()).map(e => Number(e.id.slice(1)))"


@pytest.fixture(scope="module")
def page_and_content(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page of two checkpoints on random images, one of which is missing, and its content."""
    folder, random = tmp_path_factory.mktemp("ranks"), np.random.default_rng(0)

    def part(name: str, count: int, lowest: int) -> Features:
        paths = [str(folder / f"{name}{i:02d}.png") for i in range(count)]
        for path in paths[1:]:
            Image.fromarray(random.integers(0, 255, (16, 8, 3), dtype=np.uint8)).resize((64, 128)).save(path)
        labels = random.integers(lowest, 8, count), random.integers(1, 5, count)
        return Features(random.normal(size=(count, 6)).astype(np.float32), *labels, tuple(paths))

    query, gallery = part("query", 30, 1), part("gallery", 60, -1)
    other = dataclasses.replace(query, values=query.values + random.normal(size=(30, 6)).astype(np.float32))
    sides = [
        CheckpointFeatures("rri_last.pth", query, gallery, "input"),
        CheckpointFeatures("control_last.pth", other, gallery, "input"),
    ]
    write_page(folder / "long.html", render(describe_retrieval("drawn", sides, queries=30)))
    content = describe_retrieval("drawn", sides, queries=20)
    return write_page(folder / "page.html", render(content)), content


def ordered(content: dict[str, Any], key: Callable[[dict[str, Any]], float]) -> list[int]:
    return [entry["query"] for entry in sorted(content["lists"], key=key)]


def test_filters_and_their_count(open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]) -> None:
    path, content = page_and_content
    page = open_page(path).page
    every_query = [entry["query"] for entry in content["lists"]]
    assert page.evaluate(SHOWN) == every_query
    assert page.locator("#count").text_content() == "all 20 listed queries"
    assert page.locator("#count").get_attribute("aria-live") == "polite"

    page.get_by_label("query camera").select_option("2")
    by_camera = [entry["query"] for entry in content["lists"] if entry["camera"] == 2]
    assert page.evaluate(SHOWN) == by_camera and 0 < len(by_camera) < 20
    assert page.locator("#count").text_content() == f"{len(by_camera)} of 20 listed queries"

    identity = content["lists"][0]["identity"]
    page.get_by_label("query camera").select_option("")
    page.get_by_role("searchbox", name="identity").fill(f" {identity}, 999")
    by_identity = [entry["query"] for entry in content["lists"] if entry["identity"] == identity]
    assert page.evaluate(SHOWN) == by_identity
    page.get_by_role("searchbox", name="identity").fill("nobody")
    assert page.evaluate(SHOWN) == []
    assert page.locator("#count").text_content() == "0 of 20 listed queries"

    page.get_by_role("button", name="reset").click()
    page.wait_for_function("document.getElementById('count').textContent.startsWith('all')")
    assert page.evaluate(SHOWN) == every_query
    for change in ("repaired", "broken", "kept"):
        page.get_by_label("top-1 result").select_option(change)
        assert page.evaluate(SHOWN) == [entry["query"] for entry in content["lists"] if entry["change"] == change]


def test_long_lists_have_pages_and_filters_apply_to_all(
    open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]
) -> None:
    visit = open_page(page_and_content[0].with_name("long.html"))
    page, every = visit.page, "[...document.querySelectorAll('.query')].map(e => Number(e.id.slice(1)))"
    listed = page.evaluate(every)
    assert 20 < len(listed) <= 30
    assert page.evaluate(SHOWN) == listed[:20]
    above, below = page.locator(".turn").all()
    assert below.inner_text().split("\n")[0].startswith("‹ previous") and "page 1 of 2" in above.inner_text()
    assert above.get_by_role("button", name="previous").is_disabled()
    below.get_by_role("button", name="next").click()
    assert page.evaluate(SHOWN) == listed[20:] and "page 2 of 2" in above.inner_text()
    # A query of the second page is found from the first, and the other way round.
    for text, shown in ((f"{listed[0]}", listed[0]), (f"{listed[-1]}", listed[-1])):
        identity = page.locator(f"#q{text}").get_attribute("data-identity")
        page.get_by_role("searchbox", name="identity").fill(identity)
        assert shown in page.evaluate(SHOWN) and not above.is_visible()
    page.get_by_role("searchbox", name="identity").fill("")
    assert page.evaluate(SHOWN) == listed[:20]
    page.emulate_media(media="print")
    assert page.evaluate(SHOWN) == listed


def test_sorting(open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]) -> None:
    path, content = page_and_content
    page = open_page(path).page
    keys: dict[str, Callable[[dict[str, Any]], float]] = {
        "ap": lambda entry: entry["sides"][0]["average_precision"],
        "first": lambda entry: -entry["sides"][0]["first_hit"],
        "fall": lambda entry: entry["difference"],
        "rise": lambda entry: -entry["difference"],
        "identity": lambda entry: entry["identity"],
        "change": lambda entry: -abs(entry["difference"]),
    }
    options = page.locator("#sort option").evaluate_all("options => options.map(option => option.value)")
    assert set(options) == set(keys) and options[0] == "change"
    for name, key in keys.items():
        page.get_by_label("sort by").select_option(name)
        assert page.evaluate(SHOWN) == ordered(content, key), name


def test_the_keyboard_is_enough(open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]) -> None:
    path, content = page_and_content
    page = open_page(path).page
    page.locator("#camera").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "identity"
    page.keyboard.type(str(content["lists"][0]["identity"]))
    page.keyboard.press("Enter")
    assert page.evaluate(SHOWN) and len(page.evaluate(SHOWN)) < 20
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "sort"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('all')")
    assert len(page.evaluate(SHOWN)) == 20


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_readable(
    open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]], tmp_path: Path, width: int, dark: bool
) -> None:
    visit = open_page(page_and_content[0], width, dark=dark)
    assert visit.overflowing() == []
    visit.page.locator("summary").click()
    ratio, text = visit.contrast()
    assert ratio >= 4.5, f"{ratio:.2f}: {text}"
    assert visit.colors(tmp_path / "shot.png", ".query .answers li:nth-child(2) .shot") > 50, "no image in the frame"
    boxes = visit.shown(".query:first-child .results > :first-child .shot")
    assert len(boxes) == 10 and all(box["width"] >= 50 and box["x"] + box["width"] <= width for box in boxes)


def test_right_and_wrong_differ_in_more_than_color(
    open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]
) -> None:
    page = open_page(page_and_content[0]).page
    style = "e => getComputedStyle(e).borderTopStyle + ' ' + getComputedStyle(e).borderTopColor"
    right, wrong = (page.locator(f".{verdict} .shot").first.evaluate(style) for verdict in ("right", "wrong"))
    assert right.split(" ", 1)[0] == "solid" and wrong.split(" ", 1)[0] == "dashed"
    assert right.split(" ", 1)[1] != wrong.split(" ", 1)[1]


def test_without_javascript_and_in_print(
    browser: Any, open_page: OpenPage, page_and_content: tuple[Path, dict[str, Any]]
) -> None:
    path, content = page_and_content
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(path.resolve().as_uri())
    assert page.locator(".query").count() == len(content["lists"])
    assert page.locator(".query").last.is_visible() and not page.locator("#filters").is_visible()
    context.close()
    printed = open_page(path, media="print")
    assert not printed.page.locator("#filters").is_visible()
    assert len(printed.shown(".query")) == len(content["lists"])
    assert len(printed.page.pdf()) > 10_000
