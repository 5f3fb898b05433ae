"""Fixtures that open pages in the Chromium of the system. Without it or playwright, these tests are skipped."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HEIGHT = 800

# The lowest contrast of any visible text with its background, by WCAG 2.1, and that text.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const channels = text => {
    if (!known.has(text)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      known.set(text, [...canvas.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(text);
  };
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  let worst = { ratio: 21, text: "" };
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].filter(n => n.nodeType === Node.TEXT_NODE).map(n => n.data.trim()).join(" ").trim();
    if (!own || ["SCRIPT", "STYLE"].includes(e.tagName) || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const color = channels(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(color), luminance(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: own.slice(0, 60) };
  }
  return worst;
}"""

# Elements that extend beyond the right edge of the page and are not in a scrolling region.
OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const inFrame = e => {
    for (let p = e.parentElement; p; p = p.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX)) return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("*")]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !inFrame(e))
    .map(e => `${e.tagName} ${e.id} ${e.className} ${(e.textContent || "").trim().slice(0, 40)}`);
  return wide.length ? wide : ["the page as a whole"];
}"""


@dataclass
class Visit:
    """An open page."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Fail on errors in the console or in scripts, and on requests other than for the page itself."""
        errors = "; ".join(self.errors)
        self.errors.clear()
        assert not errors, errors

    def overflowing(self) -> list[str]:
        """Descriptions of the elements that make the page scroll sideways."""
        return self.page.evaluate(OVERFLOWING)

    def contrast(self) -> tuple[float, str]:
        """The lowest contrast (1 to 21) of a visible text with its background, and that text."""
        worst = self.page.evaluate(CONTRAST)
        return worst["ratio"], worst["text"]

    def shown(self, selector: str) -> list[dict[str, float]]:
        """The boxes (x, y, width, height in pixels of the page) of the visible elements that match."""
        boxes = [element.bounding_box() for element in self.page.query_selector_all(selector) if element.is_visible()]
        return [box for box in boxes if box]

    def screenshot(self, path: Path, selector: str | None = None) -> np.ndarray:
        """The whole page, or the first element that matches, as (H, W, 3) uint8; also written to `path` as PNG."""
        if selector:
            data = self.page.locator(selector).first.screenshot(path=path)
        else:
            data = self.page.screenshot(path=path, full_page=True)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def colors(self, path: Path, selector: str | None = None) -> int:
        """The number of distinct colors in a quarter of the pixels of a screenshot; 1 for a blank page."""
        pixels = self.screenshot(path, selector)[::2, ::2].astype(np.int32)
        return len(np.unique(pixels @ np.array([1 << 16, 1 << 8, 1])))


OpenPage = Callable[..., Visit]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium for all tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """`open_page(path, width=1280, dark=False, media="screen") -> Visit`: opens a file in a window, width in pixels.

    Also a page at an address, `http://...`, which may send requests to its own server. Errors during loading fail the
    test at once, later ones at its end.
    """
    visits: list[Visit] = []

    def call(path: Path | str, width: int = 1280, *, dark: bool = False, media: Any = "screen") -> Visit:
        scheme: Any = "dark" if dark else "light"
        page = browser.new_page(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, offline=isinstance(path, Path)
        )
        visit = Visit(page, path.resolve().as_uri() if isinstance(path, Path) else path)
        visits.append(visit)
        page.on("console", lambda message: message.type == "error" and visit.errors.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: visit.errors.append(f"script: {error}"))
        page.on("request", lambda request: _note(visit, request.url))
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(visit.address)
        visit.check()
        return visit

    yield call
    for visit in visits:
        visit.page.close()
    for visit in visits:
        visit.check()


def _note(visit: Visit, url: str) -> None:
    own = visit.address.startswith("http") and url.startswith((visit.address, f"blob:{visit.address}"))
    if url.partition("#")[0] != visit.address and not url.startswith("data:") and not own:
        visit.errors.append(f"request: {url[:200]}")
