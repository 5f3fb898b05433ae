"""The short form of the kills while drawing, extracting and decoding, and that it sees what it is to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault import cache_kills

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_while_filling_the_cache() -> None:
    ended = subprocess.run(
        [sys.executable, "tests/fault/cache_kills.py", "--kills", "4"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        text=True, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 kills while drawing, extracting and decoding: 0 caches not as if never killed" in ended.stdout


def test_what_differs_is_seen(tmp_path: Path) -> None:
    (tmp_path / "cache" / "in").mkdir(parents=True)
    (tmp_path / "cache" / "in" / "a").write_bytes(b"a")
    whole = cache_kills.contents(tmp_path / "cache")
    assert cache_kills.faults(whole, tmp_path / "cache") == []
    (tmp_path / "cache" / ".b.partial").mkdir()
    (tmp_path / "cache" / "in" / "a").write_bytes(b"b")
    assert cache_kills.faults(whole, tmp_path / "cache") == [".b.partial: only once", "in/a: different"]
