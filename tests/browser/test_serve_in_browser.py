"""The page of tools/serve.py in a browser: all kinds of queries, the filters, the keyboard, and errors."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import served

if TYPE_CHECKING:
    from playwright.sync_api import FileChooser

OpenPage = Callable[..., Any]
PATHS = "[...document.querySelectorAll('#answers .facts > .quiet')].map(e => e.textContent)"
NAME = "document.getElementById('name').textContent"
BARS = """[...document.querySelectorAll("#answers .bar")].map(bar => ({
  part: Number(bar.querySelector(".part").getAttribute("width")),
  mark: parseFloat(bar.querySelector(".mark").getAttribute("d").slice(1)),
  within: bar.classList.contains("within"),
}))"""
TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> served.SampleIndex:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    return served.build_sample_index(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def address(sample: served.SampleIndex) -> Iterator[str]:
    """The address of the page of a calibrated model."""
    from reid.search.serve.app import make_app
    from reid.search.serve.limits import Limits

    app = make_app(served.calibrated(sample.embedder), sample.index, limits=Limits(upload_bytes=200_000))
    with served.serving(app) as url:
        yield url


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """An image of the third identity."""
    path = tmp_path / "query.png"
    served.person(2, 60).save(path)
    return path


def until(page: Any, expression: str, expected: Any = True) -> Any:
    """Wait until the value of an expression in the page equals `expected`, or satisfies it if it is a predicate."""
    end, value = time.monotonic() + 15, None
    while time.monotonic() < end:
        value = page.evaluate(expression)
        if expected(value) if callable(expected) else value == expected:
            return value
        page.wait_for_timeout(30)
    raise AssertionError(f"{expression}: {value!r}")


def answered(page: Any, status: str) -> list[str]:
    """Wait for a status, and return the paths of the answers."""
    until(page, "document.getElementById('status').textContent", status)
    return page.evaluate(PATHS)


def failed(visit: Any, status: int | None = None) -> str:
    """Wait for an error, and return its message. With an HTTP status, the console must have logged it too."""
    line = until(visit.page, "document.getElementById('error').textContent", bool)
    assert visit.page.locator("#error").is_visible() and visit.page.locator("#error").get_attribute("role") == "alert"
    if status:
        assert all(f"status of {status}" in error for error in visit.errors) and visit.errors
        visit.errors.clear()
    return line


def drop(page: Any, name: str, kind: str, data: bytes, *, paste: bool = False) -> None:
    """Drop a file onto the page, or paste it."""
    page.evaluate(
        """([name, kind, data, paste]) => {
          const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: kind }));
          const send = (type, event) => document.getElementById("drop").dispatchEvent(event(type));
          const options = { bubbles: true, cancelable: true };
          if (paste) return send("paste", type => new ClipboardEvent(type, { ...options, clipboardData: transfer }));
          for (const type of ["dragenter", "dragover", "drop"])
            send(type, type => new DragEvent(type, { ...options, dataTransfer: transfer }));
        }""",
        [name, kind, base64.b64encode(data).decode(), paste],
    )


def test_choose_filter_and_search_on(open_page: OpenPage, address: str, query: Path) -> None:
    visit = open_page(address)
    page = visit.page
    assert page.locator("#status").get_attribute("aria-live") == "polite" and not page.locator("#found").is_visible()
    page.get_by_role("button", name="Search").click()
    assert failed(visit) == "Choose an image first."
    page.get_by_label("Choose an image of one person").set_input_files(query)
    paths = answered(page, "12 results out of 12 images.")
    assert [path[:4] for path in paths[:3]] == ["0003"] * 3 and not page.locator("#error").is_visible()
    first = page.locator("#answers button").first
    assert first.text_content().startswith("1 · 0.0") and "p 0.9" in first.text_content()
    # The bar reaches beyond the mark of the threshold exactly for the results within it.
    bars = page.evaluate(BARS)
    within = sum(bar["part"] >= bar["mark"] for bar in bars)
    assert 0 < within < 12 and [bar["within"] for bar in bars] == [True] * within + [False] * (12 - within)
    assert [bar["mark"] for bar in bars] == pytest.approx([100 / (1 + np.exp(8 * 0.25 - 4))] * 12)
    assert page.locator("#within").text_content().startswith(f"{within} of 12 are within the threshold")
    name = page.locator("#answers img").first.get_attribute("alt")
    assert name.startswith("rank 1, distance 0.0") and "identity 3" in name
    until(
        page,
        "[...document.querySelectorAll('#query-panel img, #answers img')].slice(0, 5).every(i => i.naturalWidth > 0)",
    )

    # Filters apply immediately, also to an uploaded image.
    page.get_by_label("camera 2").check()
    paths = answered(page, "4 results out of 4 images.")
    assert all("_c2s1_" in path for path in paths)
    page.get_by_label("camera 3").check()
    page.get_by_label("Time from").fill("203")
    page.get_by_label("At most").fill("4")
    page.get_by_role("button", name="Search").click()
    assert len(answered(page, "4 results out of 6 images.")) == 4
    page.get_by_label("Time to").fill("1")
    page.get_by_role("button", name="Search").click()
    assert failed(visit, 422) == "the time range from 203 to 1 ends before it starts"
    assert not page.locator("#found").is_visible()
    page.get_by_label("Time to").fill("203.5")
    page.get_by_label("camera 2").uncheck()
    assert answered(page, "No results: no image of the index matches the filters.") == []
    for label in ("Time from", "Time to"):
        page.get_by_label(label).fill("")
    page.get_by_label("camera 3").uncheck()
    assert len(answered(page, "4 results out of 12 images.")) == 4


def test_addresses_and_back(open_page: OpenPage, address: str, query: Path) -> None:
    visit = open_page(address)
    page = visit.page
    page.get_by_label("Choose an image of one person").set_input_files(query)
    uploaded = answered(page, "12 results out of 12 images.")
    assert page.url == address and page.get_by_text("so it cannot be shared").is_visible()
    # A result becomes the next query, and the address holds the search.
    page.locator("#answers button").nth(1).click()
    path = until(page, NAME, lambda text: text.endswith("_00.png"))
    page.get_by_label("camera 2").check()
    page.get_by_label("camera 3").check()
    found = answered(page, "8 results out of 8 images." if "_c1" in path else "7 results out of 8 images.")
    assert parse_qs(page.url.partition("?")[2]) == {"path": [path], "camera": ["2", "3"]}
    assert not page.locator("#unshared").is_visible() and page.title().startswith(path)
    other = open_page(address).page
    other.goto(page.url)
    until(other, PATHS, found)
    assert other.get_by_label("camera 3").is_checked() and not other.get_by_label("camera 1").is_checked()
    # Back undoes the filters one by one, and then returns to the uploaded image.
    for _ in range(2):
        page.go_back()
    answered(page, "11 results out of 12 images.")
    assert not page.get_by_label("camera 2").is_checked()
    page.go_back()
    until(page, PATHS, uploaded)
    assert page.locator("#name").text_content() == "query.png" and page.url == address
    page.reload()
    assert failed(visit) == "The uploaded image was not kept: choose it again."


def test_results_on_several_pages(open_page: OpenPage, sample: served.SampleIndex) -> None:
    from reid.search.serve.app import make_app
    from reid.search.serve.limits import Limits

    with served.serving(make_app(sample.embedder, sample.index, limits=Limits(page_results=5))) as address:
        page = open_page(address).page
        page.goto(f"{address}?path=0001_c1s1_000101_00.png&page=3")
        until(page, "document.getElementById('page').textContent", "Page 3 of 3")
        assert len(page.evaluate(PATHS)) == 1 and page.get_by_role("button", name="Next page").is_disabled()
        page.get_by_role("button", name="Previous page").click()
        until(page, "document.getElementById('page').textContent", "Page 2 of 3")
        assert len(page.evaluate(PATHS)) == 5 and page.url.endswith("&page=2")
        assert page.evaluate("document.activeElement.id") == "results-title"
        page.go_back()
        until(page, "document.getElementById('page').textContent", "Page 3 of 3")
        page.close()  # its images may still be loading when the server stops


def test_drop_paste_and_invalid_images(open_page: OpenPage, address: str) -> None:
    visit = open_page(address)
    page = visit.page
    drop(page, "dropped.webp", "image/webp", served.encode_image(served.person(0, 61), "WEBP"))
    assert [path[:4] for path in answered(page, "12 results out of 12 images.")[:3]] == ["0001"] * 3
    drop(page, "pasted.png", "image/png", served.encode_image(served.person(3, 62)), paste=True)
    until(page, "document.getElementById('name').textContent", "pasted.png")
    before = answered(page, "12 results out of 12 images.")
    assert [path[:4] for path in before[:3]] == ["0004"] * 3
    drop(page, "notes.txt", "text/plain", b"<script>alert(1)</script>")
    assert failed(visit, 422) == "the image: not a JPEG, PNG, BMP or WebP image, or a corrupt one"
    # The earlier answers are not those of this image; Back returns to them.
    assert not page.locator("#found").is_visible()
    page.go_back()
    assert answered(page, "12 results out of 12 images.") == before
    drop(page, "<img src=x onerror=alert(1)>.png", "image/png", bytes(200_001))
    assert failed(visit) == "<img src=x onerror=alert(1)>.png: too large: the limit is 0.2 MB."
    assert not page.locator("#found").is_visible()
    page.go_back()
    assert answered(page, "12 results out of 12 images.") == before
    assert page.locator("#name").text_content() == "pasted.png"


def test_the_keyboard_is_enough(open_page: OpenPage, address: str, query: Path) -> None:
    page = open_page(address).page
    page.bring_to_front()
    page.keyboard.press("Tab")
    until(page, "document.activeElement.id", "file")
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(20):  # Chromium drops key presses until it has painted its first frame
        page.keyboard.press("Space")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files(query)
    answered(page, "12 results out of 12 images.")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.value") == "1"
    answered(page, "4 results out of 4 images.")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    for _ in range(9):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('#answers button')")
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id", "query-title")
    assert page.locator("#name").text_content() == "0003_c1s1_000103_00.png"
    answered(page, "3 results out of 4 images.")


def test_readable(open_page: OpenPage, address: str, query: Path, tmp_path: Path) -> None:
    for width, dark in ((390, True), (1280, False)):
        visit = open_page(address, width, dark=dark)
        page = visit.page
        for searched in (False, True):
            if searched:
                page.locator("#file").set_input_files(query)
                answered(page, "12 results out of 12 images.")
                page.evaluate("document.querySelectorAll('#answers img').forEach(image => image.loading = 'eager')")
                until(page, "[...document.querySelectorAll('#answers img')].every(image => image.naturalWidth > 0)")
            assert visit.overflowing() == []
            ratio, text = visit.contrast()
            assert ratio >= 4.5, f"{ratio:.2f}: {text}"
        assert visit.colors(tmp_path / "shot.png", "#answers .shot") > 50, "no image is shown"
        boxes = visit.shown("#answers .shot")
        assert len(boxes) == 12 and all(box["width"] >= 80 and box["x"] + box["width"] <= width for box in boxes)
        # Every control has an accessible name.
        names = page.locator("input, button, select").evaluate_all(
            "all => all.map(e => (e.labels?.length ? e.labels[0].textContent : '') || e.textContent)"
        )
        assert all(name.strip() for name in names)


def test_a_changing_index_a_lost_server_and_the_token(
    open_page: OpenPage, sample: served.SampleIndex, query: Path, tmp_path: Path
) -> None:
    from reid.search.serve.app import make_app

    shutil.copytree(sample.crops, tmp_path / "crops")
    own = served.SampleIndex(sample.embedder, sample.weights, tmp_path / "crops", tmp_path / "index")
    served.reindex(own)
    with served.serving(make_app(own.embedder, own.index, token=TOKEN)) as address:
        visit = open_page(address.replace("127.0.0.1", "localhost") + "health")
        visit.address = address = address.replace("127.0.0.1", "localhost")
        page = visit.page
        page.goto(address)
        visit.errors.clear()  # The response was 401.
        page.get_by_label("Token").fill("not it")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the token.").wait_for()
        visit.errors.clear()
        assert visit.contrast()[0] >= 4.5 and visit.overflowing() == []
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_label("camera 3").wait_for()
        assert page.url == address and page.evaluate("document.cookie") == ""
        page.locator("#file").set_input_files(query)
        answered(page, "12 results out of 12 images.")
        assert "p 0." not in page.locator("#answers").text_content()
        assert "Not calibrated" in page.locator("main").text_content()
        served.person(2, 63).save(own.crops / "0003_c8s1_000803_00.png")
        served.reindex(own)
        # A deleted file has an empty frame with a text alternative.
        (own.crops / "0003_c8s1_000803_00.png").unlink()
        page.get_by_role("button", name="Search").click()
        answered(page, "13 results out of 13 images.")
        assert page.locator("#images").text_content() == "13" and page.get_by_label("camera 8").is_visible()
        page.get_by_label("camera 8").check()
        answered(page, "1 result out of 1 image.")
        until(page, "document.querySelector('#answers img').alt", lambda text: text.endswith(", no image"))
        visit.errors.clear()
    page.get_by_role("button", name="Search").click()
    assert failed(visit) == "No response from the server: is it still running?"
    visit.errors.clear()
