"""The figures of the documents are those of the rows that measurements left in the tree."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from reid.config.loading import config_digest, load_config
from reid.report.tables import percent_with_deviation
from reid.sweep.table import Line, lines, read_rows

ROOT = Path(__file__).parents[1]
DOCS, PARTS = ROOT / "docs", ROOT / "configs" / "parts"
ROWS = sorted((DOCS / "results" / "parts").glob("*.jsonl"))
CITED = re.compile(r"([\d.]+) / ([\d.]+) \(`(\w+)`\)")


def every_line() -> dict[str, Line]:
    return {line.name: line for file in ROWS for line in lines(read_rows(file))}


@pytest.fixture(scope="module")
def tables() -> Any:
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_rows(tables: Any) -> None:
    shown = set()
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.fill(text) == text, f"{page.name} is out of date: run make tables"
        shown |= set(re.findall(r"<!-- table: (\w+ \w+)", text))
    assert {f"parts {file.stem}" for file in ROWS} <= shown and "runs demo" in shown


def test_a_row_of_other_settings_says_so(tables: Any) -> None:
    config = ROOT / "configs" / "demo_synthetic.yaml"
    digest = config_digest(load_config(config, ["SEED", "3", "OUTPUT_DIR", "elsewhere", "THREADS", "1"]))
    assert tables.origin({"commit": "abc", "config_digest": digest}, config) == "abc"
    other = config_digest(load_config(config, ["STEP0.EPOCHS", "3"]))
    assert tables.origin({"commit": "abc", "config_digest": other}, config) == "abc, other settings"


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
