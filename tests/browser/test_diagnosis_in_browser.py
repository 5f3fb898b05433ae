"""The page of a diagnosis in a browser: offline, readable at two widths and in dark mode, with sortable rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reid.diagnostics.identities import similar_identities
from reid.diagnostics.survey import find_layers, survey
from reid.diagnostics.weights import diagnose_layer
from reid.report.diagnosis import render
from reid.report.pages import write_page
from reid.training.provenance import provenance

OpenPage = Callable[..., Any]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "a.conv.weight": torch.randn(8, 3, 3, 3, generator=random),
        "b.fc.weight": torch.randn(40, 30, generator=random) + 1,
        "c.depthwise.weight": torch.randn(6, 1, 3, 3, generator=random),
        "d.broken_layer_with_a_name_longer_than_any_column_is_wide.weight": torch.full((3, 4), torch.nan),
    }
    layers = find_layers(tensors)
    content = {"weights": "<b>a</b>.pth", "tensors": 4, "config": "SEED: 0", "provenance": provenance()}
    content |= {"survey": survey(layers), "layers": [diagnose_layer(layer) for layer in layers[:3]]}
    content["layers"][1]["identities"] = similar_identities(tensors["b.fc.weight"], None)
    return write_page(tmp_path / "diagnosis.html", render(content, {}))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_readable_at_two_widths(open_page: OpenPage, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    visit = open_page(page, width, dark=dark)
    assert visit.overflowing() == []
    ratio, text = visit.contrast()
    assert ratio >= 4.5, text
    assert visit.colors(tmp_path / "page.png") > 100
    assert visit.page.text_content("h1") == "Correlation in <b>a</b>.pth"
    assert len(visit.shown(".gram img")) == 4


def test_rows_sort_by_any_column(open_page: OpenPage, page: Path) -> None:
    visit = open_page(page)
    head = visit.page.locator("#survey th button")

    def names() -> list[str]:
        return [name[0] for name in visit.page.locator("#survey tbody tr td:first-child").all_inner_texts()]

    assert names() == ["b", "a", "c", "d"]
    head.nth(0).click()
    assert names() == ["a", "b", "c", "d"]
    assert visit.page.locator("#survey th").nth(0).get_attribute("aria-sort") == "ascending"
    head.nth(0).click()
    assert names() == ["d", "c", "b", "a"]
    head.nth(3).click()  # parameters: 12, 54, 216, 1200
    assert names() == ["d", "c", "a", "b"]
    # Rows without a number stay last in both directions.
    head.nth(4).click()
    assert names()[:2] == ["b", "a"]
    head.nth(4).click()
    assert names()[:2] == ["a", "b"]
    assert visit.page.locator("#survey th[aria-sort]").count() == 1


def test_prints_all_rows(open_page: OpenPage, page: Path) -> None:
    visit = open_page(page, 800, media="print")
    assert len(visit.shown("#survey tbody tr")) == 4
    assert visit.overflowing() == []
