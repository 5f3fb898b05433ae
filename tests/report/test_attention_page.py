"""The page of attention maps: text alternatives, scales and clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from html_page import Page

from reid.report import attention_page
from reid.report.attention import draw_assignments, draw_attention
from reid.report.attention_page import Attended, write_page

pytest.importorskip("jinja2")
IMAGE = np.full((32, 16, 3), 100, dtype=np.uint8)


def test_each_map_has_the_scale_of_its_weights(tmp_path: Path) -> None:
    weights = np.full((4, 2), 0.1)
    weights[3, 0] = 0.8
    row = Attended(Path("a/b.png"), IMAGE, {"attention": weights}, {"attention": draw_attention(IMAGE, weights)})
    page = Page(write_page(tmp_path / "new" / "page.html", [row], title="Attention of crow"))
    assert "".join(f"<li>{tick}</li>" for tick in ("0.8", "0.6", "0.4", "0.2", "0")) in page.source
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    where = "at 88% of the height and 25% of the width"
    assert alts == ["image b.png", f"attention of b.png: largest weight 0.8, {where}", ""]


def test_clusters_are_named_with_their_colors_and_ghosts(tmp_path: Path) -> None:
    assignments = np.zeros((4, 2, 2))
    assignments[2, 0] = assignments[3, 1, 0] = assignments[0, 1, 1] = 1
    drawing = draw_assignments(IMAGE, assignments, ghosts=1)
    row = Attended(Path("b.png"), IMAGE, {"clusters": assignments}, {"clusters": drawing})
    source = write_page(tmp_path / "page.html", [row], title="Clusters", ghosts=1).read_text()
    assert (
        "3: 50.0 %" in source and "1: 25.0 %" in source and "4: 25.0 % (ghost)" in source and "</svg>2: " not in source
    )


def test_the_page_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.ones((2, 2))
    row = Attended(Path("b.png"), IMAGE, {"attention": weights}, {"attention": draw_attention(IMAGE, weights)})
    write_page(tmp_path / "one.html", [row], title="Attention")
    monkeypatch.setattr(attention_page, "MAX_BYTES", 3000)
    source = write_page(tmp_path / "page.html", [row] * 9, title="Attention").read_text()
    assert 0 < source.count("<h2 ") < 9 and "more images would exceed the size limit" in source
