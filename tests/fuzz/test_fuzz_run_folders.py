"""Run folders, of which reports are made, and the rows and runs of a sweep."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from fuzz.harness import SCRIPT, altered, attempt, fuzz, mutated, values
from hypothesis import strategies as st
from synthetic_run import SyntheticRun

from reid.report.comparison import write_comparison
from reid.report.history import read_history
from reid.report.pages import write_page
from reid.report.sweep import render
from reid.report.training import write_report
from reid.sweep.runs import SweepRun
from reid.sweep.table import lines, markdown, read_rows, write_rows

RUN = SyntheticRun(Path(), rounds=1, size=4)
LOG = "".join(json.dumps(line) + "\n" for line in RUN.lines)
SCORES = json.dumps(RUN.summary)
NAMES = ("config.yaml", "log.jsonl", "scores.json")


def written(folder: Path, config: str | bytes, log: str | bytes, scores: str | bytes | None) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in zip(NAMES, (config, log, scores), strict=True):
        if content is not None:
            raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
            (folder / name).write_bytes(raw)
    return folder


def check(page: Path | None) -> None:
    if page is not None:
        assert SCRIPT not in page.read_text(encoding="utf-8")


@fuzz(st.integers(0, 2), mutated(RUN.config.encode(), LOG.encode(), SCORES.encode()))
def test_mutated_files_of_a_run(tmp_path: Path, place: int, data: bytes) -> None:
    files: list[str | bytes | None] = [RUN.config, LOG, SCORES]
    files[place] = data
    if place == 1:
        files[2] = None  # the log counts where there are no scores
    run = written(tmp_path / "run", *files)  # type: ignore[arg-type]
    attempt("run folders: mutated", lambda: read_history(run))


CONFIG = yaml.safe_load(RUN.config)


@fuzz(altered(CONFIG), altered(RUN.lines), altered(RUN.summary), st.integers(0, 3))
def test_other_values(tmp_path: Path, config: Any, log: list[Any], scores: Any, kind: int) -> None:
    text = "".join(json.dumps(line) + "\n" for line in log) if kind != 1 else LOG
    told = yaml.safe_dump(config) if kind == 3 else RUN.config
    run = written(tmp_path / "run", told, text, json.dumps(scores) if kind == 1 else None)
    attempt("run folders: values", lambda: read_history(run))


@fuzz(altered(CONFIG), altered(RUN.lines, 6), altered(RUN.summary, 2), st.integers(0, 2), share=0.04, short=2)
def test_pages(tmp_path: Path, config: Any, log: list[Any], scores: Any, kind: int) -> None:
    text = "".join(json.dumps(line) + "\n" for line in log)
    run = written(tmp_path / "run", yaml.safe_dump(config), text, json.dumps(scores) if kind == 0 else None)
    other = written(tmp_path / "other", RUN.config, LOG, SCORES)
    check(attempt("run folders: reports", lambda: write_report(run)))
    check(attempt("run folders: comparisons", lambda: write_comparison([run, other], tmp_path / "comparison.html")))


ROW = {
    "name": "a", "seed": 0, "epochs": 8, "rank1": 0.5, "mAP": 0.25, "control_rank1": 0.5, "control_mAP": None,
    "correlation": 0.03, "images_per_second": 300.0, "setting": {"SEED": "1"}, "dataset": "market1501",
}  # fmt: skip
ROWS = [ROW, {**ROW, "seed": 1, "control_mAP": 0.2}, {**ROW, "name": SCRIPT}]
TABLE = "".join(json.dumps(row) + "\n" for row in ROWS)


@fuzz(st.one_of(mutated(TABLE.encode()), altered(ROWS).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())))
def test_rows_of_a_sweep(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(data)
    attempt("sweeps: rows", lambda: read_rows(tmp_path / "rows.jsonl"))
    attempt("sweeps: rows", lambda: write_rows(tmp_path / "rows.jsonl", [ROW]))


@fuzz(altered(ROWS, 1), share=0.05, short=2)
def test_pages_of_sweeps(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    def write() -> Path:
        table = lines(read_rows(path))
        markdown(table)
        return write_page(tmp_path / "sweep.html", render([dataclasses.asdict(line) for line in table]))

    check(attempt("sweeps: pages", write))


START = {"machine": {"threads": 2, "processor": "x"}, "commit": None, "kind": "start"}


@fuzz(st.one_of(altered(RUN.summary), values()), st.one_of(altered([START], 1), st.just([START])), st.booleans())
def test_runs_of_a_sweep(tmp_path: Path, summary: Any, log: list[Any], control: bool) -> None:
    text = "".join(json.dumps(line) + "\n" for line in log)
    folder = written(tmp_path / "run", RUN.config, text, json.dumps(summary))
    run = SweepRun("a", Path("a.yaml"), (("SEED", "1"),), 0, folder, control)
    if attempt("sweeps: runs", run.finished):
        attempt("sweeps: runs", lambda: lines([run.row()]))
