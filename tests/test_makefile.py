"""What the Makefile runs, with stand-ins for Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reid.threads import available_cores

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


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_as_many_tests_run_at_a_time_as_the_quota_grants(tmp_path: Path) -> None:
    python = tmp_path / "python"
    limited = "import sys, reid.threads; reid.threads.cpu_quota = lambda: 1.5; exec(sys.argv[-1])"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{limited}' \"$@\"\n")
    python.chmod(0o755)

    def jobs(program: str | Path) -> int:
        command = ["make", "--old-file=.venv/ready", "--dry-run", "test", f"PYTHON={program}"]
        environment = {name: value for name, value in os.environ.items() if name != "JOBS"}
        made = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True, env=environment).stdout
        return int(made.partition("--numprocesses ")[2].split()[0])

    assert jobs(python) == 1
    assert jobs(sys.executable) == available_cores()
    assert jobs("false") >= 1  # before there is a Python that can import it
