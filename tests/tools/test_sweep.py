"""`tools/sweep.py` from a grid to its table, with trainings of one second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tool = Callable[..., Any]
TINY = """
DATASETS: {NAME: synthetic, CACHE: CACHE_FOLDER, SYNTHETIC: {SIZE: tiny}}
MODEL: {BACKBONE: osnet_x0_25, WEIGHTS: none, EIGENLAYER: {DIM: 16}}
INPUT: {SIZE: [32, 16]}
SOLVER: {BATCH_SIZE: 16, PRECISION: float32}
STEP0: {EPOCHS: 1}
RRI: {MAX_ROUNDS: 0}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TINY.replace("CACHE_FOLDER", str(tmp_path / "cache")))
    return path


def test_a_grid_gives_a_table_and_is_not_repeated(tool: Tool, tmp_path: Path, config: Path) -> None:
    output, rows = tmp_path / "out", tmp_path / "rows.jsonl"
    grid = "MODEL.POOLING.NAME=average,max"
    arguments = ["sweep", "--config-file", config, "--grid", grid, "--output", output, "--jobs", 2]
    first = tool(*arguments, "--rows", rows)
    assert first.code == 0, first.err
    assert "2 runs, 0 of them already finished" in first.out
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["setting"] for row in written] == [{"MODEL.POOLING.NAME": name} for name in ("average", "max")]
    for row in written:
        folder = output / "small" / f"NAME={row['setting']['MODEL.POOLING.NAME']}" / "seed0"
        scores = json.loads((folder / "scores.json").read_text())
        assert (row["rank1"], row["mAP"]) == (scores["final"]["rank1"], scores["final"]["mAP"])
        assert row["correlation"] == scores["rows"][-1]["correlation"]
        assert "MODEL.POOLING.NAME" in json.loads((folder / "log.jsonl").read_text().splitlines()[0])["command"]
    names = [f"small MODEL.POOLING.NAME={name}" for name in ("average", "max")]
    assert all(f"| `{name}` |" in (output / "sweep.md").read_text() and f"\n{name} " in first.out for name in names)
    assert (output / "sweep.html").exists()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("scores.json")}
    again = tool(*arguments)
    assert again.code == 0 and "2 runs, 2 of them already finished" in again.out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("scores.json")} == before
    config.write_text(config.read_text().replace("EPOCHS: 1", "EPOCHS: 2"))
    changed = tool(*arguments)
    assert changed.code == 2 and "STEP0.EPOCHS was 1, is 2" in changed.err


def test_errors_are_reported_before_anything_is_trained(tool: Tool, tmp_path: Path, config: Path) -> None:
    output = tmp_path / "out"
    for extra, message in (
        (["--grid", "MODEL.POOLING.NAME=average,gemm"], "MODEL.POOLING.NAME 'gemm' must be one of"),
        (["--grid", "nonsense"], "is not of the form KEY=VALUE"),
        (["--seeds", 0], "--seeds and --jobs must be 1 or more"),
        (["--grid", "SEED=1,2"], "vary it by --seeds"),
        (["--grid", "STEP0.LR=0.1", "--grid", "RESTRAINT.LR=0.1"], "would share the folder"),
        (["--rows", config], "contains a line that is not a row of a sweep"),
    ):
        ended = tool("sweep", "--config-file", config, "--output", output, *extra)
        assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1
    assert not output.exists()


def test_a_failure_is_reported_and_the_others_are_kept(tool: Tool, tmp_path: Path, config: Path) -> None:
    # 600 identities per batch are more than there are, which is found out during training.
    grid = "SAMPLER.NAME=identity SAMPLER.INSTANCES=2 SOLVER.BATCH_SIZE=16,1200"
    ended = tool("sweep", "--config-file", config, "--grid", grid, "--output", tmp_path / "out")
    assert ended.code == 2
    assert "1 of 2 runs failed" in ended.err and "a batch of 600 identities" in ended.err
    assert "SOLVER" not in (tmp_path / "out" / "sweep.md").read_text()
    assert len((tmp_path / "out" / "sweep.jsonl").read_text().splitlines()) == 1
