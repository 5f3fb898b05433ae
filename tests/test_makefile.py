"""The targets of the Makefile that train, with a stand-in for Python that prints its arguments."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("target", "variable"), [("demo", "DEMO_DIR"), ("model", "MODEL_DIR")])
def test_training_again_resumes_and_removes_nothing(tmp_path: Path, target: str, variable: str) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "python $@"\n')
    python.chmod(0o755)
    run = tmp_path / "a run"

    def make() -> str:
        command = ["make", "--old-file=.venv/ready", target, f"BIN={python.parent}", f"{variable}={run}"]
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout

    first = make()
    assert f" OUTPUT_DIR {run}\n" in first and "--resume" not in first.replace("echo --resume", "")
    run.mkdir()
    (run / "config.yaml").write_text("SEED: 0\n")
    (run / ".lock").write_text("process 1\n")
    again = make()
    assert f" --resume OUTPUT_DIR {run}\n" in again
    assert f"to start a new one: make {target} {variable}=" in again
    assert sorted(path.name for path in run.iterdir()) == [".lock", "config.yaml"]
