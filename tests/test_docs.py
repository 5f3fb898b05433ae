"""The figures of the documents are those of the rows that measurements left in the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reid.report.tables import percent_with_deviation
from reid.sweep.table import Line, lines, markdown, read_rows

DOCS = Path(__file__).parents[1] / "docs"
PARTS = Path(__file__).parents[1] / "configs" / "parts"
ROWS = sorted((DOCS / "results").glob("*.jsonl"))
CITED = re.compile(r"([\d.]+) / ([\d.]+) \(`(\w+)`\)")


def every_line() -> dict[str, Line]:
    return {line.name: line for file in ROWS for line in lines(read_rows(file))}


@pytest.mark.parametrize("file", ROWS, ids=lambda file: file.stem)
def test_results_show_the_table_of_the_rows(file: Path) -> None:
    assert markdown(lines(read_rows(file))) in (DOCS / "results_parts.md").read_text(encoding="utf-8")


def test_parts_cite_the_measured_scores() -> None:
    cited = CITED.findall((DOCS / "parts.md").read_text(encoding="utf-8"))
    measured = every_line()
    for rank1, mean, name in cited:
        expected = [percent_with_deviation(value) for value in (measured[name].rank1, measured[name].mAP)]
        assert [rank1, mean] == expected, name
    assert {name for _, _, name in cited} == set(measured)


def test_every_part_has_a_row() -> None:
    assert {path.stem for path in PARTS.glob("*.yaml")} == set(every_line())


def test_a_row_is_the_run_of_its_config() -> None:
    for file in ROWS:
        for row in read_rows(file):
            assert (row["name"], row["seed"]) == (Path(row["config"]).stem, 0)
            assert row["dataset"] == "market1501" and row["setting"] == {}
            assert 0 < row["mAP"] < row["rank1"] < 1 and 0 < row["correlation"] <= 1 + 1e-6
