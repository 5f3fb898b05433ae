"""The benchmark of the index runs at a small size; its timings are not checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_it_runs_through() -> None:
    pytest.importorskip("faiss")
    sizes = ("--crops=120", "--more=10", "--search=1500", "--width=16", "--queries=3")
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, str(BENCHMARKS / "gallery.py"), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    for title in (
        "| build |",
        "| add 10 |",
        "| one search, exact, median |",
        "| exact |",
        "| FAISS: ivf index over 1500",
    ):
        assert done.stdout.count(title) == 1, done.stdout
