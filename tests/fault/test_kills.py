"""The short form of `make fault`, and that it sees what it is to see."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fault import kills
from fault.kills import differences
from forked import start

from reid.io.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_and_resumed_as_if_never_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kills.py", "--kills", "1", "--jobs", "1", "--kinds", "averaged"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = start(kills.main)
    try:
        out, err = process.stdout.read(), process.stderr.read()
        assert process.wait(600) == 0, out + err
    finally:
        process.close()
    assert "1 of 1 runs, killed and resumed, ended as if never killed" in out


def last_bit(folder: Path) -> None:
    content = load_checkpoint(folder / "rri_last.pth")
    content["model"]["w"][1] = torch.nextafter(content["model"]["w"][1], torch.tensor(9.0))
    save_checkpoint(folder / "rri_last.pth", content)


def one_line(folder: Path) -> None:
    with open(folder / "log.jsonl", "a") as file:
        file.write('{"epoch": 2}\n')


def one_score(folder: Path) -> None:
    (folder / "scores.json").write_text('{"rows": [{"mAP": 0.5000001, "seconds": 3}]}')


def one_file(folder: Path) -> None:
    (folder / ".config.yaml.writing").write_text("")


@pytest.mark.parametrize("change", [last_bit, one_line, one_score, one_file])
def test_what_differs_is_seen(tmp_path: Path, change: Callable[[Path], None]) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    save_checkpoint(
        whole / "rri_last.pth", {"model": {"w": torch.tensor([1.0, 2.0])}, "config": "", "num_classes": 2, "lr": 1.0}
    )
    (whole / "log.jsonl").write_text('{"epoch": 1, "seconds": 2}\n')
    (whole / "scores.json").write_text(json.dumps({"rows": [{"mAP": 0.5, "seconds": 2}]}))
    shutil.copytree(whole, other)
    (other / "log.jsonl").write_text('{"epoch": 1, "seconds": 4}\n')
    assert list(differences(whole, other)) == []
    change(other)
    assert len(list(differences(whole, other))) == 1
