"""Tables of a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from reid.errors import InputError
from reid.sweep.table import lines, markdown, read_rows, write_rows


def row(name: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    scores = {"rank1": 0.5, "mAP": 0.25, "control_rank1": None, "control_mAP": None}
    return {
        "name": name,
        "seed": seed,
        "epochs": 8,
        **scores,
        "correlation": 0.03,
        "images_per_second": 300.0,
        **changes,
    }


def test_a_line_is_mean_and_sample_deviation_over_seeds() -> None:
    (line,) = lines([row("a", seed, mAP=value) for seed, value in ((2, 0.3), (0, 0.1), (1, 0.5))])
    assert line.seeds == (0, 1, 2)
    assert line.mAP == pytest.approx((0.3, math.sqrt((0.04 + 0.04 + 0.0) / 2)))
    assert line.rank1 == pytest.approx((0.5, 0.0))
    assert line.control_mAP is None


def test_one_seed_has_no_deviation() -> None:
    (line,) = lines([row("a")])
    assert line.mAP == (0.25, None)


def test_a_control_counts_if_every_seed_has_one() -> None:
    both = [row("a", seed, control_rank1=0.4, control_mAP=0.2 + seed / 10) for seed in (0, 1)]
    assert lines(both)[0].control_mAP == pytest.approx((0.25, math.sqrt(0.005)))
    assert lines([both[0], row("a", 1)])[0].control_mAP is None


def test_markdown() -> None:
    table = markdown(lines([row("a", 0), row("a", 1, mAP=0.35), row("b")]))
    assert table.splitlines() == [
        "| setting | seeds | epochs | rank-1 | mAP | S(W) | images/s |",
        "|---|---|---|---|---|---|---|",
        "| `a` | 2 | 8 | 50.0 ± 0.0 | 30.0 ± 7.1 | 0.0300 ± 0.0000 | 300 ± 0 |",
        "| `b` | 1 | 8 | 50.0 | 25.0 | 0.0300 | 300 |",
    ]
    assert "| 40.0 / 20.0 |" in markdown(lines([row("a", control_rank1=0.4, control_mAP=0.2)]))


def test_gain_of_all_seeds() -> None:
    gain = {name: [0.05, 0.01, 0.08] for name in ("rank1", "mAP", "mINP")}
    rows = [row("a", seed, control_rank1=0.4, control_mAP=0.2, gain=gain) for seed in (0, 1)]
    assert lines(rows)[0].gain == gain
    assert "| 40.0 ± 0.0 / 20.0 ± 0.0 | +5.0 (+1.0 to +8.0) |" in markdown(lines(rows))
    other = {**rows[1], "gain": None}  # of another sweep
    assert lines([rows[0], other])[0].gain is None
    assert "minus" not in markdown(lines([rows[0], other]))
    assert "| 40.0 / 20.0 | – |" in markdown(lines([*rows, row("b", control_rank1=0.4, control_mAP=0.2)]))


def test_rows_replace_older_ones(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rows.jsonl"
    assert read_rows(file) == []
    write_rows(file, [row("a"), row("b")])
    write_rows(file, [row("c"), row("a", mAP=0.9), row("a", 1)])
    assert [(r["name"], r["seed"], r["mAP"]) for r in read_rows(file)] == [
        ("a", 0, 0.9),
        ("b", 0, 0.25),
        ("c", 0, 0.25),
        ("a", 1, 0.25),
    ]


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"name": "a"}\n'])
def test_file_without_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"rows\.jsonl: contains a line that is not a row"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"seed": []},
        {"mAP": "0.5"},
        {"mAP": 2**70},
        {"rank1": [1]},
        {"mAP": float("nan")},
        {"gain": [0.1]},
        {"gain": {"rank1": [0.1, 0.0], "mAP": [0.1, 0.0], "mINP": [0.1, 0.0]}},
    ],
    ids=str,
)
def test_invalid_row(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row("a"), **change}) + "\n")
    with pytest.raises(InputError, match="not a row of a sweep"):
        read_rows(tmp_path / "rows.jsonl")
