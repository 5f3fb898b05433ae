"""A run with a network of timm from training to an exported file, by the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

timm = pytest.importorskip("timm")
Tool = Callable[..., Any]


def test_a_transformer_is_trained_resumed_diagnosed_and_exported(
    tool: Tool, train: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("MODEL.BACKBONE", "timm:test_vit", "INPUT.SIZE", "[64, 32]", "MODEL.EIGENLAYER.DIM", "8")
    short = ("STEP0.EPOCHS", "1", "RRI.MAX_ROUNDS", "0", "RRI.CONTROL", "False")
    ended = train(*small, *short)
    assert ended.code == 0 and "timm:test_vit, from scratch" in ended.out, ended.err
    ended = train("--resume", *small, *short, "RRI.FINAL_RESTRAINT", "True", "--force")
    assert ended.code == 0 and "restraint" in ended.out, ended.err
    weights = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("diagnose", "--weights", weights, "--output", tmp_path / "diagnosed"),
        ("export", "--weights", weights, "--output", tmp_path / "vit.pt2"),
    )
    for name, *arguments in commands:
        ended = tool(name, *arguments)
        assert ended.code == 0, ended.err
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = tool("export", "--weights", weights, "--output", tmp_path / "again.pt2")
    assert ended.code == 2 and len(ended.err.strip().splitlines()) == 1
    assert "timm:test_vit needs the library timm" in ended.err and "timm" in ended.err.partition("pip install")[2]


def test_names_and_poolings_are_checked_before_anything_is_written(train: Tool, tmp_path: Path) -> None:
    for pairs, message in (
        (("MODEL.BACKBONE", "timm:resnet81"), "did you mean timm:resnet18"),
        (("MODEL.POOLING.NAME", "own"), "only for networks of timm"),
    ):
        ended = train(*pairs)
        assert ended.code == 2 and message in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
