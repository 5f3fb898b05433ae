"""`tools/sweep.py` from a grid to its table, with trainings of one second."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from called import Tool

TINY = """
DATASETS: {NAME: synthetic, CACHE: CACHE_FOLDER, SYNTHETIC: {SIZE: tiny}}
MODEL: {BACKBONE: small_convolution, WEIGHTS: none, EIGENLAYER: {DIM: 16}}
INPUT: {SIZE: [128, 64]}
SOLVER: {BATCH_SIZE: 16, PRECISION: float32}
STEP0: {EPOCHS: 1}
RRI: {MAX_ROUNDS: 0}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TINY.replace("CACHE_FOLDER", os.environ["REID_CACHE"]))
    return path


def test_a_grid_gives_a_table_without_what_failed_and_is_not_repeated(tool: Tool, tmp_path: Path, config: Path) -> None:
    output, rows = tmp_path / "out", tmp_path / "rows.jsonl"
    # 600 identities per batch are more than there are, which is found out during training.
    grid = "SAMPLER.NAME=identity SAMPLER.INSTANCES=2 SOLVER.BATCH_SIZE="
    arguments = ["sweep", "--config-file", config, "--output", output, "--jobs", 2, "--grid"]
    first = tool(*arguments, f"{grid}16,1200", "--rows", rows)
    assert first.code == 2
    assert "2 runs, 0 of them already finished" in first.out
    assert "1 of 2 runs failed" in first.err and "a batch of 600 identities" in first.err
    (row,) = [json.loads(line) for line in rows.read_text().splitlines()]
    assert row["setting"] == {"SAMPLER.NAME": "identity", "SAMPLER.INSTANCES": "2", "SOLVER.BATCH_SIZE": "16"}
    (found,) = output.rglob("scores.json")
    scores = json.loads(found.read_text())
    assert (row["rank1"], row["mAP"]) == (scores["final"]["rank1"], scores["final"]["mAP"])
    assert row["correlation"] == scores["rows"][-1]["correlation"]
    assert "SOLVER.BATCH_SIZE" in json.loads((found.parent / "log.jsonl").read_text().splitlines()[0])["command"]
    name = "small NAME=identity,INSTANCES=2,BATCH_SIZE=16"
    table = (output / "sweep.md").read_text()
    assert f"| `{name}` |" in table and "\nsmall NAME=identity" in first.out and "1200" not in table
    assert len((output / "sweep.jsonl").read_text().splitlines()) == 1
    assert (output / "sweep.html").exists()
    before = found.stat().st_mtime_ns
    assert "1 runs, 1 of them already finished" in tool(*arguments, f"{grid}16").ok().out
    assert found.stat().st_mtime_ns == before
    config.write_text(config.read_text().replace("EPOCHS: 1", "EPOCHS: 2"))
    tool(*arguments, f"{grid}16").fails("STEP0.EPOCHS was 1, is 2")


def test_the_gain_over_the_control_with_its_interval(tool: Tool, tmp_path: Path, config: Path) -> None:
    config.write_text(
        config.read_text().replace(
            "RRI: {MAX_ROUNDS: 0}", "RRI: {MAX_ROUNDS: 1, CONTROL: True}\nRESTRAINT: {EPOCHS: 1}"
        )
        + "RELAXATION: {EPOCHS: 1}\n"
    )
    output = tmp_path / "out"
    tool("sweep", "--config-file", config, "--output", output, "--seeds", 2, "--jobs", 2).ok()
    differences = [json.loads(path.read_text())["difference"]["mAP"][0] for path in output.rglob("scores.json")]
    rows = [json.loads(line) for line in (output / "sweep.jsonl").read_text().splitlines()]
    for row in rows:
        mean, low, high = row["gain"]["mAP"]
        assert mean == pytest.approx(sum(differences) / 2) and low <= mean <= high
    table = (output / "sweep.md").read_text()
    assert "gain in mAP (95 % interval)" in table and re.search(
        r"\| [+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\) \|", table
    )


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
        tool("sweep", "--config-file", config, "--output", output, *extra).fails(message, alone=True)
    assert not output.exists()
