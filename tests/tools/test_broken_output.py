"""Every tool where stdout takes nothing: a full disk, or a pipe whose reader is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from called import Tool

from reid.commands.parsers import PARSERS

FULL = "error: the disk is full: while writing; free some space and retry\n"


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("stream", "code", "message"),
    [
        (
            lambda: os.open("/dev/full", os.O_WRONLY),
            2,
            "error: the disk is full: while writing; free some space and retry\n",
        ),
        (broken_pipe, 141, ""),
    ],
)
@pytest.mark.parametrize("name", PARSERS)
def test_help(
    name: str, stream: Callable[[], int], code: int, message: str, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(stream(), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        ended = tool(name, "--help")
    assert (ended.code, ended.err) == (code, message)
