"""The tools in two processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
from fault.kills import TINY
from gloo import together

from reid.config import build
from reid.config.loading import load_config
from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "demo_synthetic.yaml"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_interrupted_in_one_process_and_resumed_by_torchrun(tmp_path: Path) -> None:
    run = tmp_path / "run"
    short = ("RRI.MAX_ROUNDS", "0", "RRI.FINAL_RESTRAINT", "False", "RRI.CONTROL", "False")
    options = [*TINY, *short, "OUTPUT_DIR", str(run), "DATASETS.CACHE", os.environ["REID_CACHE"]]
    arguments = ["--config-file", str(CONFIG), *options]
    first, second = together(gloo_jobs.called, tmp_path / "out", "train", arguments, 2, joined=False)
    assert (first.code, second.code) == (130, 130), first.told + second.told
    told = [line for line in (first.told + second.told).splitlines() if "To resume" in line]
    assert (
        len(told) == 1 and "-m torch.distributed.run --standalone --nproc-per-node 2 -m reid train --resume" in told[0]
    )
    assert "2 processes" in first.told and "Eigenlayer" not in second.told and "Traceback" not in first.told
    saved = load_checkpoint(run / "checkpoints" / "rri_last.pth")
    assert 0 < saved["middle"]["sums"]["batches"] < 4 and len(saved["middle"]["others"]) == 1

    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("tools/train_svdnet.py", "--resume", *arguments),
        ],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, text=True, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("\nreport: ") == 1
    log = lines(run / "log.jsonl")
    assert [entry["kind"] for entry in log] == ["start", "epoch", "epoch", "stage"] and log[0]["processes"] == 2
    assert [entry["epoch"] for entry in log[1:]] == [1, 2, 2]
    assert json.loads((run / "scores.json").read_text())["stopped"] == "max_rounds"
    assert (run / "report.html").exists()


def test_each_process_of_a_host_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    variables = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (variables | {"MASTER_ADDR": "a", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    for name in ("auto", "cuda"):
        assert str(build.device(load_config(CONFIG, ["MODEL.DEVICE", name]))) == "cuda:1"
    with pytest.raises(InputError, match="'cuda:0': each of the 2 processes on this host needs its own GPU; use cuda"):
        build.device(load_config(CONFIG, ["MODEL.DEVICE", "cuda:0"]))
