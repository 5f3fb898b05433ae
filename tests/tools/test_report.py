"""`tools/report.py`: one run, several runs, and folders without a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from called import Tool
from synthetic_run import SyntheticRun


def test_one_run_gets_its_report(tool: Tool, tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "run").write()
    ended = tool("report", run)
    assert (ended.code, ended.out, ended.err) == (0, f"report: {run / 'report.html'}\n", "")
    assert "SVDNet on market1501" in (run / "report.html").read_text(encoding="utf-8")
    tool("report", run, "--output", tmp_path / "elsewhere" / "page.html").ok()
    assert (tmp_path / "elsewhere" / "page.html").read_bytes() == (run / "report.html").read_bytes()


def test_several_runs_are_compared(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [SyntheticRun(tmp_path / name / "run", seed=i).write() for i, name in enumerate("ab")]
    monkeypatch.chdir(tmp_path)
    ended = tool("report", *runs)
    assert (ended.code, ended.out) == (0, "comparison: comparison.html\n")
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "a/run" in page and "b/run" in page
    assert not (runs[0] / "report.html").exists()
    tool("report", *runs, "--output", "named.html").ok()
    assert (tmp_path / "named.html").read_text(encoding="utf-8") == page


def test_a_folder_without_a_run(tool: Tool, tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "run").write()
    for arguments in ([tmp_path / "none"], [run, tmp_path / "none"]):
        ended = tool("report", *arguments, "--output", tmp_path / "page.html")
        assert ended.code == 2 and ended.out == ""
        assert ended.err.startswith(f"error: {tmp_path / 'none'} holds no run") and ended.err.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
