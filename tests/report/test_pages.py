"""Pages are self-contained, escape values, and make no requests."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from jinja2 import UndefinedError
from PIL import Image
from png_files import png

from reid.errors import InputError
from reid.report import pages
from reid.report.figures import COLORS, DASHES, LINES, line_style, new_figure, plot_style, style, to_svg
from reid.report.pages import Chart, distinct_names, page_folder, picture, render_page, write_page
from reid.report.thumbnails import thumbnails

TEMPLATE = """\
{% extends "base.html" %}
{% import "macros.html" as macros %}
{% block title %}{{ title }}{% endblock %}
{% block main %}
<p id="title">{{ title }}</p><p id="share">{{ 0.12345 | percent }} {{ 12345 | number }}</p>
{% if chart %}{{ macros.chart(chart) }}{% endif %}
{% if shown %}{{ macros.image(shown) }}{% endif %}
{% call macros.scroll("Table of " ~ title) %}<table id="t"><tr><td>1</td></tr></table>{% endcall %}
{% endblock %}
"""
SCRIPT = '{% block script %}const name = {{ title | tojson }}; console.log(name < "b");{% endblock %}'


Render = Callable[..., str]


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Render:
    """`render(template, **values)`: renders a template of the test, placed beside those of the project."""
    folder = tmp_path / "templates"
    shutil.copytree(pages.TEMPLATES, folder)
    monkeypatch.setattr(pages, "TEMPLATES", folder)

    def call(template: str = TEMPLATE, **values: object) -> str:
        (folder / "test.html").write_text(template)
        return render_page("test.html", **{"title": "t", "chart": None, "shown": None, **values})

    return call


def test_values_are_escaped_and_formatted(render: Render) -> None:
    page = render(title="<script>alert('x')</script>")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert '<p id="share">12.3 12,345</p>' in page
    assert 'aria-label="Table of &lt;script&gt;' in page
    assert page.startswith("<!DOCTYPE html>")


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("training.html")


def test_undecodable_names(render: Render) -> None:
    page = render(TEMPLATE + SCRIPT, title="caf\udce9.jpg")
    assert "caf?.jpg" in page
    page.encode("utf-8")


def test_only_the_script_of_the_page_is_allowed(render: Render) -> None:
    assert "script-src" not in render()
    page = render(TEMPLATE + SCRIPT, title="</script><b>")
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert "\\u003c/script\\u003e" in script
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    assert allowed == base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "http" not in policy and "*" not in policy and "script-src 'unsafe" not in policy


def test_the_chart_of_a_page(render: Render, tmp_path: Path) -> None:
    chart = Chart("A & B", "<svg></svg>", 'the "text"', key=(("line1", "", "<first>"), ("line2", "6 2", "second")))
    path = write_page(tmp_path / "new" / "page.html", render(chart=chart))
    page = Page(path)
    labels = [a["aria-label"] for _, a in page.tags if a.get("role") == "img"]
    assert labels == ['A & B. the "text"']
    assert "&lt;first&gt;" in page.source and 'stroke-dasharray="6 2"' in page.source
    assert "<figcaption>" not in page.source
    both = render(chart=Chart("t", "<svg>large</svg>", "a", "caption", wide=True, small="<svg>small</svg>"))
    assert '<div class="large"><svg>large</svg></div><div class="small"><svg>small</svg></div>' in both
    with pytest.raises(InputError, match="is a folder"):
        write_page(tmp_path, "page")


def decoded(src: str) -> Image.Image:
    kind, _, data = src.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def test_pictures_are_bounded_and_bare(render: Render) -> None:
    ramp = np.linspace(0, 255, 300 * 150).reshape(300, 150).astype(np.uint8)
    photo = Image.fromarray(np.stack([ramp, ramp[::-1], ramp], axis=-1))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a name that should be removed"
    photo.save(file, "JPEG", exif=exif, quality=95)
    shown = picture(Image.open(file), alt="a <person>", max_side=100)
    image = decoded(shown.src)
    assert (shown.width, shown.height) == image.size == (50, 100)
    assert (
        image.format == "JPEG"
        and not image.getexif()
        and b"should be removed" not in base64.b64decode(shown.src.partition(",")[2])
    )
    expected = np.asarray(photo.resize((50, 100), Image.Resampling.LANCZOS)).astype(float)
    assert np.abs(np.asarray(image) - expected).mean() < 4
    assert 'alt="a &lt;person&gt;" width="50" height="100"' in render(shown=shown)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_png_is_lossless_and_not_enlarged(mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    shown = picture(image, alt="matrix", max_side=100, kind="PNG")
    assert (shown.width, shown.height) == (5, 7)
    assert np.array_equal(np.asarray(decoded(shown.src).convert("RGBA")), np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize("kind", ["text", "cut", "huge"])
def test_a_corrupt_picture_has_no_thumbnail(kind: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "JPEG")
    huge = png(60_000, 60_000, zlib.compress(b""))
    data = {"text": b"not an image", "cut": whole.getvalue()[:200], "huge": huge}[kind]
    path = tmp_path / "0001_c1.jpg"
    path.write_bytes(data)
    assert thumbnails([str(path)]) == {str(path): None}


def test_a_drawing_has_the_colors_of_the_page(drawn_charts: None) -> None:
    with style():
        figure, axes = new_figure()
        axes.plot([0, 1], [0, 1], **plot_style("line3", "6 2"))
        axes.imshow(np.zeros((2, 2)), extent=(0, 1, 0, 1))
        axes.set_title(r"a \$ and <b>")
        svg = to_svg(figure, "one")
        again = to_svg(figure, "two")
    assert "stroke: var(--line3)" in svg and "stroke-dasharray: 6,2" in svg
    assert "data:image/png;base64," in svg
    assert "a $ and &lt;b&gt;" in svg
    ids = [set(re.findall(r'id="([^"]+)"', drawn)) for drawn in (svg, again)]
    assert ids[0] and not ids[0] & ids[1], "two charts on a page share an id"
    base = (pages.TEMPLATES / "base.html").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", base, flags=re.DOTALL)
    for name in COLORS:
        assert f"--{name}:" in light and f"--{name}:" in dark


def test_many_lines_differ() -> None:
    styles = [line_style(i) for i in range(len(LINES) * len(DASHES))]
    assert len(set(styles)) == len(styles)
    assert len({color for color, _ in styles[:8]}) == len({dashes for _, dashes in styles[:8]}) == 8


def luminance(color: str) -> float:
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_contrast_with_the_background() -> None:
    """At least 3:1, as WCAG 2.1 requires of graphics, on light and on dark backgrounds."""
    base = (pages.TEMPLATES / "base.html").read_text()
    for block in re.findall(r":root \{(.*?)\}", base, flags=re.DOTALL):
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))
        for name in set(COLORS) - {"paper", "grid"}:
            light, dark = sorted((luminance(colors[name]), luminance(colors["paper"])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, name


@pytest.mark.parametrize(
    ("file", "against", "expected"),
    [
        ("runs/a/checkpoints/rri_last.pth", None, "runs/a/ranks_rri_last"),
        (
            "runs/a/checkpoints/rri_last.pth",
            "runs/a/checkpoints/control_last.pth",
            "runs/a/ranks_rri_last_vs_control_last",
        ),
        ("runs/a/checkpoints/rri_last.pth", "runs/b/checkpoints/rri_last.pth", "runs/a/ranks_rri_last_vs_b_rri_last"),
        ("weights/osnet.pth", None, "weights/ranks_osnet"),
        ("f/a.npz", "f/b.npz", "f/ranks_a_vs_b"),
    ],
)
def test_each_command_and_file_has_its_own_folder(file: str, against: str | None, expected: str) -> None:
    assert page_folder("ranks", Path(file), Path(against) if against else None) == Path(expected)
    assert page_folder("diagnosis", Path(file)) != page_folder("ranks", Path(file))


def test_names_are_as_short_as_tells_paths_apart(tmp_path: Path) -> None:
    assert distinct_names([tmp_path / "a.pth"]) == ["a.pth"]
    assert distinct_names([tmp_path / "a.pth", tmp_path / "b.pth"]) == ["a.pth", "b.pth"]
    folders = [Path(name) for name in ("/r/a/run", "/r/b/run", "/r/other", "/s/b/run")]
    assert distinct_names(folders) == ["a/run", "r/b/run", "other", "s/b/run"]
    assert distinct_names([Path("/run"), Path("/a/run")]) == ["/run", "a/run"]
    with pytest.raises(InputError, match="compared with itself"):
        distinct_names([tmp_path / "a.pth", tmp_path / "." / "a.pth"])
