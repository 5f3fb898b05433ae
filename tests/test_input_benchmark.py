"""The input benchmark runs at a small size, with and without a baseline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "input.py"

# The interface of the baseline's transforms.py.
TRANSFORMS = """
import torch
from torchvision.transforms import PILToTensor

def build_transforms(height, width, transforms, norm_mean, norm_std):
    print("a word about every transform")
    return lambda image: PILToTensor()(image.resize((width, height))).float(), None
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), "--count=64", "--rounds=1", *arguments]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_input_with_a_baseline(tmp_path: Path) -> None:
    (tmp_path / "torchreid" / "data").mkdir(parents=True)
    (tmp_path / "torchreid" / "data" / "transforms.py").write_text(TRANSFORMS, encoding="utf-8")
    done = run(f"--torchreid={tmp_path}")
    assert done.returncode == 0, done.stderr
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in done.stdout.splitlines() if "| " in line}
    for name in ("from the cache", "decoding", "torchreid, 2 workers"):
        assert float(rows[name][0]) > 0 and float(rows[name][2]) > 0
    assert "a word" not in done.stdout


@pytest.mark.parametrize("key", ["torchreid", "images"])
def test_an_unsuitable_folder_is_reported(tmp_path: Path, key: str) -> None:
    done = run(f"--{key}={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert {"torchreid": "not a clone of torchreid", "images": "0 JPEGs do not fill a batch"}[key] in done.stderr
