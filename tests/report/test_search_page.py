"""The saved page of a search: the facts below each result, the bar of its probability, and junk named as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from html_page import Page

from reid.report.search_page import answer_table, default_threshold, write_page

pytest.importorskip("jinja2")
THRESHOLDS = [
    {"rate": 0.01, "distance": 0.7, "probability": 0.2},
    {"rate": 0.001, "distance": 0.5, "probability": 0.6},
]


def answer(rank: int, distance: float, probability: float | None, **labels: str) -> dict[str, Any]:
    known = {"identity": "", "camera": "", "time": "", "kind": "", **labels}
    return {"rank": rank, "distance": distance, "probability": probability, "path": "a.png", "file": "/a.png", **known}


def content(thresholds: list[dict[str, float]], *answers: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"prior": None, "calibrated_on": None}
    if thresholds:
        known = {"prior": 0.1, "calibrated_on": "drawn"}
    return {
        "index": "index",
        "images": 3,
        "search": "exact",
        **known,
        "thresholds": thresholds,
        "kinds": sorted({a["kind"] for a in answers} - {""}),
        "queries": [{"paths": ["q.png"], "answers": list(answers)}],
    }


def test_probabilities_are_bars_with_the_threshold(tmp_path: Path) -> None:
    found = content(THRESHOLDS, answer(1, 0.5, 0.6, time="203"), answer(2, 0.6, 0.35))
    page = Page(write_page(tmp_path / "page.html", found))
    results = page.source.partition('<ol class="answers"')[2].partition("</ol>")[0]
    assert results.count('class="bar within"') == 1 and results.count('class="bar"') == 1
    assert 'class="part" width="60.0"' in results and 'class="part" width="35.0"' in results
    assert results.count('d="M60.0 ') == 2 and "<span>time 203</span>" in results
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes]
    assert labels[1].startswith("rank 1, distance 0.500, probability 0.60, time 203, within the threshold")
    assert labels[2].startswith("rank 2, distance 0.600, probability 0.35, beyond the threshold")
    assert "1 of 2 is within the threshold" in page.source and "false-match rate of 0.1 %" in page.source


def test_without_a_calibration_there_are_no_bars(tmp_path: Path) -> None:
    page = Page(write_page(tmp_path / "page.html", content([], answer(1, 0.5, None))))
    assert 'class="bar' not in page.source and "threshold" not in page.source.partition("<main>")[2]
    assert default_threshold([]) is None and default_threshold(THRESHOLDS) == THRESHOLDS[1]


def test_junk_is_no_person(tmp_path: Path) -> None:
    found = content([], answer(1, 0.5, None, identity="-1", kind="junk"), answer(2, 0.6, None, identity="7"))
    page = Page(write_page(tmp_path / "page.html", found))
    assert "<span>junk</span>" in page.source and "identity -1" not in page.source
    assert "<span>identity 7</span>" in page.source and "Junk (labeled -1) is a poor detection" in page.source
    table = answer_table(found).splitlines()
    assert "junk" in table[-2] and "-1" not in table[-2] and any(line.startswith("junk (labeled -1)") for line in table)
