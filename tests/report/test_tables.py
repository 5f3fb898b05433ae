"""The tables and closing lines of the terminal."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest

from reid.errors import InputError
from reid.report.tables import (
    Table,
    closing_lines,
    evaluation_tables,
    render_tables,
    shown_difference,
)

VARIANT = {"feature": "input", "normalized": False, "flip": False}


def test_differences_are_those_of_the_numbers_beside_them() -> None:
    assert 100 * (0.72249 - 0.69951) > 2.25  # would be shown as +2.3, between 72.2 and 70.0
    assert shown_difference(0.72249, 0.69951) == 2.2
    assert str(shown_difference(0.5, 0.50001)) == "0.0"


def test_closing_lines() -> None:
    summary = {
        "dataset": "market1501",
        "final": {"rank1": 0.72249, "mAP": 0.604},
        "control_final": {"rank1": 0.69951, "mAP": 0.559},
        "difference": {"rank1": [0.02298, 0.0081, 0.0364], "mAP": [0.045, -0.0003, 0.0512]},
        "rounds": 4,
        "stopped": "converged",
    }
    text = closing_lines(summary, **VARIANT)
    assert text.splitlines()[1:5] == [
        "final       rank-1 72.2                    mAP 60.4",
        "control     rank-1 70.0                    mAP 55.9",
        "difference  rank-1 +2.2 (+0.8 to +3.6)     mAP +4.5 (+0.0 to +5.1)",
        "            in brackets: 95 % intervals, by bootstrap over the persons",
    ]
    wide = {"rank1": [-0.5, -0.6, -0.4], "mAP": [-0.5, -0.6, -0.4]}
    assert max(map(len, closing_lines({**summary, "difference": wide}, **VARIANT).splitlines())) <= 80
    without = closing_lines({**summary, "difference": None}, **VARIANT)
    assert "difference  rank-1 +2.2                    mAP +4.5\n" in without and "%" not in without
    assert "difference" not in closing_lines({**summary, "control_final": None}, **VARIANT)


TABLE = Table(("setting", "mAP"), (("a|b", "5.0"), ("a long name, with a comma", "12.5")), "scores", "in percent")


def test_aligned_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "setting                     mAP\n-------------------------------\na|b                         5.0\n"
    text += "a long name, with a comma  12.5"
    assert render_tables([TABLE], "table") == f"scores\n{text}\nin percent"
    monkeypatch.setenv("COLUMNS", "20")
    narrow = render_tables([TABLE], "table").splitlines()
    assert max(map(len, narrow)) <= 20 and narrow[3] == "a|b              5.0" and "a comma" in narrow[5]


def test_markdown_and_csv() -> None:
    about = dataclasses.replace(TABLE, title="", note="", about=("Dataset", "market1501"))
    assert render_tables([TABLE], "markdown").splitlines()[1:4] == [
        "| setting | mAP |",
        "|---|---|",
        r"| a\|b | 5.0 |",
    ]
    assert "| market1501 | a long name, with a comma | 12.5 |" in render_tables([about], "markdown")
    assert render_tables([about], "table").splitlines()[0] == "market1501"
    read = list(csv.reader(render_tables([about, TABLE], "csv").splitlines()))
    assert read[0] == ["Dataset", "setting", "mAP"] and read[2] == ["market1501", "a long name, with a comma", "12.5"]
    assert read[3:5] == [[], ["setting", "mAP"]]  # without prose


def test_json_and_unknown_formats() -> None:
    assert json.loads(render_tables([TABLE], "json", {"mAP": 1 / 3})) == {"mAP": 1 / 3}
    with pytest.raises(InputError, match="did you mean markdown"):
        render_tables([TABLE], "markdwon")


def test_scores_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = dict.fromkeys(("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP"), 1.0)
    score = {**numbers, "feature": "output", "normalized": True, "flip": True}
    content = {"dataset": "market1501", "scores": [score], "multi_query": [{**score, "variant": "multi-query mean"}]}
    text = render_tables(evaluation_tables(content), "table")
    assert all(len(line) <= 80 for line in text.splitlines())
