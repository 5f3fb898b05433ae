"""The figures of the documents are those of the rows that measurements left in the tree."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
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
    measured = {f"{file.parent.name} {file.stem}" for file in (DOCS / "results").glob("*/*.jsonl")}
    kinds = {"benchmarks": "benchmark"}
    assert {f"{kinds.get(folder, folder)} {name}" for folder, name in map(str.split, measured)} <= shown
    assert {f"runs {row['name']}" for row in tables.read_json_lines(DOCS / "results" / "runs.jsonl")} <= shown


def test_a_row_of_other_settings_says_so(tables: Any) -> None:
    config = ROOT / "configs" / "demo_synthetic.yaml"
    digest = config_digest(load_config(config, ["SEED", "3", "OUTPUT_DIR", "elsewhere", "THREADS", "1"]))
    assert tables.origin({"commit": "abc", "config_digest": digest}, config) == "abc"
    other = config_digest(load_config(config, ["STEP0.EPOCHS", "3"]))
    assert tables.origin({"commit": "abc", "config_digest": other}, config) == "abc, other settings"
    swept = {"commit": "abc", "config_digest": other, "setting": {"STEP0.EPOCHS": "3"}}
    assert tables.origin(swept, config) == "abc"


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


def study_run(arm: str, seed: int, correlation: float, mAP: float) -> dict[str, Any]:
    stage = {"stage": "restraint", "round": 0, "correlation": correlation, "input": [mAP, mAP], "output": [mAP, mAP]}
    jump = {**stage, "stage": "decorrelate", "round": 1, "train_loss_before": 1.0, "train_loss_after": 2.0 + seed}
    geometry = {key: correlation for key in ("severest_pair", "feature_correlation", "feature_effective_rank")}
    return {
        "recipe": "identity",
        "arm": arm,
        "seed": seed,
        "commit": "abc",
        "processor": "p",
        "correlation": correlation,
        "mAP": mAP,
        "geometry": geometry,
        "stages": [{**stage, "stage": "step0", "correlation": 0.1}, jump, {**stage, "round": 1}],
    }


@pytest.fixture
def study(tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runs = [study_run("US", seed, 0.9 + seed / 100, 0.3 + seed / 50) for seed in range(3)]
    runs += [study_run(f"arm {number}", 0, 0.2 + number / 10, 0.1 + number / 50) for number in range(6)]
    ends = {"mAP": [0.021, 0.004, 0.04]}
    summary = {"recipe": "identity", "arm": "US", "other": "control", "seeds": [0, 1, 2], "difference": ends}
    summary |= {"by_seed": [0.02, 0.03, 0.013], "by_seed_normalized": [0.01, -0.01, 0]}
    summary |= {"correlation": [0.91, 0.01], "rank1": [0.5, None], "mAP": [0.32, 0.02]}
    path = tmp_path / "study.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*runs, summary, {**summary, "other": "rotate"}]))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return path


def test_the_table_of_the_study(tables: Any, study: Path) -> None:
    gain = "+2.1 [+0.4, +4.0] | +2.0, +3.0, +1.3 | +1.0, -1.0, +0.0 |"
    row = tables.study_table("identity").splitlines()[-1]
    assert row == f"| US | 3 | 0.910 | 1.00 → 3.00 | 50.0 | 32.0 ± 2.0 | 32.0 | {gain} abc, p |"
    assert tables.contrasts_table("identity").splitlines()[-1] == f"| US minus rotate | {gain}"


def test_gains_after_every_stage(tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [study_run(arm, seed, 0.5, mAP) for arm, mAP in (("control", 0.2), ("US", 0.23)) for seed in (0, 1)]
    runs[-1]["stages"][-1]["input"] = [0.5, 0.26]
    runs.append(study_run("alone", 2, 0.5, 0.1))
    (tmp_path / "study.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in runs))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    header, _, *rows = tables.gains_table("identity").splitlines()
    assert header == "| arm | Step 0 | Restraint 1 |" and rows == ["| US | +3.0 | +4.5 |"]


def test_rank_correlations(tables: Any, study: Path) -> None:
    # mAP increases with S(W) over all runs, so every sample of arms has a coefficient of 1.
    assert tables.prediction_table().splitlines()[2] == (
        f"| the study, identity | 9 of 7 arms |{' +1.00 [+1.00, +1.00] |' * 4}"
    )


def test_pictures_of_the_study(tables: Any, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pictures = runpy.run_path(str(DOCS / "pictures" / "study.py"))
    monkeypatch.setitem(pictures["main"].__globals__, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["study.py", str(study)])
    pictures["main"]()
    assert "arm 5" in (tmp_path / "paths.svg").read_text() and (tmp_path / "prediction.svg").exists()


def test_a_finished_run_becomes_a_row(tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"feature": "input", "normalized": False, "flip": False}
    score = {**kind, "rank1": 0.5, "mAP": 0.25, "mINP": 0.1}
    control = {**score, "mAP": 0.2}
    stage = {
        "run": "rri",
        "stage": "step0",
        "round": 0,
        "epochs": 3,
        "seconds": 9.0,
        "train_loss": 1.5,
        "correlation": 0.1,
    }
    rows = [
        {**stage, "scores": [{**score, "flip": True}, {**score, "mAP": 0.15}]},
        {**stage, "stage": "decorrelate", "round": 1, "epochs": 0, "train_loss_before": 1.0, "scores": [control]},
        {**stage, "run": "control", "stage": "decorrelate", "round": 1, "scores": []},
        {**stage, "run": "control", "stage": "restraint", "round": 1, "scores": [control]},
    ]
    difference = {"mAP": [0.05, -0.01, 0.11], "rank1": [0.0, -0.1, 0.1]}
    summary = {"dataset": "d", "rows": rows, "final": score, "control_final": control, "difference": difference}
    (tmp_path / "scores.json").write_text(json.dumps(summary))
    start = {"commit": "abc", "machine": {"processor": "x", "threads": 2}}
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(start)}\n")
    config = ROOT / "configs" / "demo_synthetic.yaml"
    (tmp_path / "config.yaml").write_text(load_config(config, ["SEED", "4"]).dump())
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.add_run(tmp_path, "mine", str(config))
    shown = tables.runs_table("mine").splitlines()
    assert [line.split(" | ")[-1] for line in shown[2:]] == [
        *(
            "50.0 / 15.0 |",
            "50.0 / 20.0 |",
            "50.0 / 25.0 |",
            "+0.0 (-10.0 to +10.0) |",
            "+5.0 (-1.0 to +11.0) |",
            "abc |",
        )
    ]
    assert tables.stages_table("mine").splitlines()[2:] == [
        "| RRI | Step 0 | 3 | 9.0 | 1.50 | 0.1000 | 50.0 / 15.0 |",
        "| RRI | decorrelate 1 |  | 9.0 | 1.00 → 1.50 | 0.1000 | 50.0 / 20.0 |",
        "| control | Restraint 1 | 3 | 9.0 | 1.50 | 0.1000 | 50.0 / 20.0 |",
    ]
