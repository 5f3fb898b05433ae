"""The short form of the errors of system calls, and that it sees what it is to see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fault.injections import PRELOADED, build_library
from fault.scenarios import damage, differences

ROOT = Path(__file__).parents[2]


CALLS = ("open", "write", "rename", "print")


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("cc")), reason="preloads a library made by cc")
def test_failing_calls_lose_nothing(tmp_path: Path) -> None:
    library = str(build_library(tmp_path))
    preloaded = {"LD_PRELOAD": library, PRELOADED: library, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "tests/fault/injections.py", "--per", "1", "--commands", "rereading", "--calls", *CALLS],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"} | preloaded,
        text=True, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "injected errors: 0 tracebacks or unclear messages, 0 with something lost or wrong" in ended.stdout


INDEX = {"a.png": ["1", "digest", [0.5]], "b.png": ["2", "other", [0.25]]}
BEFORE: dict[str, Any] = {"index": INDEX, "page.html": "0a", "kept.json": {"x": 1}}
COMPLETE: dict[str, Any] = {"index": INDEX, "page.html": "0b", "kept.json": {"x": 2}, "new.npz": "0c"}


def test_what_is_old_or_new_is_whole() -> None:
    assert list(damage(BEFORE, BEFORE, COMPLETE)) == list(damage(BEFORE, COMPLETE, COMPLETE)) == []
    assert len(list(differences(COMPLETE, BEFORE))) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"page.html": "0d"},
        {"left.npz": "0c"},
        {"index": {"a.png": INDEX["a.png"]}},
        {"index": {**INDEX, "b.png": ["2", "other", [0.75]]}},
    ],
)
def test_damage_is_seen(change: dict[str, Any]) -> None:
    assert len(list(damage(BEFORE, {**COMPLETE, **change}, COMPLETE))) == 1


def test_a_missing_file_is_seen() -> None:
    assert list(damage(BEFORE, {"index": INDEX, "page.html": "0a"}, COMPLETE)) == ["kept.json is gone"]
