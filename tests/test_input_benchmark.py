"""The input benchmark runs at a small size, with and without a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark import run_benchmark

# The interface of the baseline's transforms.py.
TRANSFORMS = """
import torch
from torchvision.transforms import PILToTensor

def build_transforms(height, width, transforms, norm_mean, norm_std):
    print("a word about every transform")
    return lambda image: PILToTensor()(image.resize((width, height))).float(), None
"""


def run(*arguments: str) -> tuple[int, str, str]:
    return run_benchmark("input", "--count=64", "--rounds=1", *arguments)


def test_input_with_a_baseline(tmp_path: Path) -> None:
    (tmp_path / "torchreid" / "data").mkdir(parents=True)
    (tmp_path / "torchreid" / "data" / "transforms.py").write_text(TRANSFORMS, encoding="utf-8")
    code, out, err = run(f"--torchreid={tmp_path}")
    assert code == 0, err
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in out.splitlines() if "| " in line}
    for name in ("from the cache", "decoding", "torchreid, 2 workers"):
        assert float(rows[name][0]) > 0 and float(rows[name][2]) > 0
    assert "a word" not in out


@pytest.mark.parametrize("key", ["torchreid", "images"])
def test_an_unsuitable_folder_is_reported(tmp_path: Path, key: str) -> None:
    code, _, err = run(f"--{key}={tmp_path}")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert {"torchreid": "not a clone of torchreid", "images": "0 JPEGs do not fill a batch"}[key] in err
