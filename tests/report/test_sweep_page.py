"""The page of a sweep shows its lines."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from html_page import Page

from reid.errors import InputError
from reid.report import pages
from reid.report.sweep import SINGLE_SEED, render
from reid.sweep.table import Line

ONE = Line("gem <p>", (0, 1, 2), 8, (0.615, 0.012), (0.352, 0.004), None, None, (0.0261, 0.0002), (367.4, 3.0))


def lines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(dataclasses.replace(ONE, **change)) for change in changes]


def test_every_line_is_in_the_table() -> None:
    controlled = {"name": "rri", "control_rank1": (0.600, 0.01), "control_mAP": (0.360, 0.01)}
    page = Page(render(lines({}, controlled)))
    assert page.tables["settings"][1:] == [
        ["gem <p>", "3", "8", "61.5 ± 1.2", "35.2 ± 0.4", "–", "–", "0.0261", "367"],
        ["rri", "3", "8", "61.5 ± 1.2", "35.2 ± 0.4", "60.0 ± 1.0 / 36.0 ± 1.0", "+1.5 / -0.8", "0.0261", "367"],
    ]
    assert page.texts["h1"] == "2 settings compared"
    assert "warning" not in page.texts
    assert len(page.charts) == 2  # One drawing for wide screens and one for narrow ones.


def test_a_gain_has_its_interval() -> None:
    gain = {"rank1": [0.015, -0.02, 0.04], "mAP": [-0.008, -0.012, -0.001], "mINP": [0.0, 0.0, 0.0]}
    page = Page(render(lines({"control_rank1": (0.600, 0.01), "control_mAP": (0.360, 0.01), "gain": gain})))
    assert page.tables["settings"][1][6] == "+1.5 (-2.0 to +4.0) / -0.8 (-1.2 to -0.1)"


def test_each_varied_key_is_a_column() -> None:
    keys = ("MODEL.POOLING.NAME", "MODEL.NECK.NAME", "SOLVER.LR")
    values = (("gem", "bn", "0.1"), ("gem", "none", "0.1"), ("netvlad", "bn", "0.1"))
    settings = [tuple(zip(keys, value, strict=True)) for value in values]
    page = Page(render(lines(*({"name": f"a {i}", "setting": s, "config": "a.yaml"} for i, s in enumerate(settings)))))
    head, *rows = page.tables["settings"]
    assert head[:3] == ["MODEL.POOLING.NAME", "MODEL.NECK.NAME", "seeds"]
    assert [row[:2] for row in rows] == [["gem", "bn"], ["gem", "none"], ["netvlad", "bn"]]
    one = Page(render(lines({"setting": settings[0], "config": "a.yaml"}, {"setting": (), "config": "b.yaml"})))
    assert one.tables["settings"][0][:4] == ["config", "MODEL.POOLING.NAME", "MODEL.NECK.NAME", "LR"]
    assert one.tables["settings"][2][:4] == ["b", "–", "–", "–"]


def test_the_chart_has_a_text_alternative_best_first() -> None:
    page = Page(render(lines({"mAP": (0.2, None)}, {"name": "b", "mAP": (0.4, 0.1)})))
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert labels == ["mAP by setting. from the highest mAP to the lowest: b 40.0 ± 10.0; gem <p> 20.0"]


def test_warning_about_a_single_seed() -> None:
    single = render(lines({"seeds": (0,), "mAP": (0.3, None), "rank1": (0.5, None)}))
    assert SINGLE_SEED in single and "± " not in single.split("<table")[1].split("</table>")[0]


def test_names_and_dollars_are_escaped(drawn_charts: None) -> None:
    page = render(lines({"name": "<b>$x_1$</b>"}))
    assert "<b>$x" not in page and "&lt;b&gt;$x_1$&lt;/b&gt;" in page


def test_before_the_first_run_has_ended(drawn_charts: None) -> None:
    assert "No run has ended yet." in render([])


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*\[report\]"):
        render([])
