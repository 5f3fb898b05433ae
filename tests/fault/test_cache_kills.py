"""The short form of the kills while drawing, extracting and decoding, and that it sees what it is to see."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from fault import cache_kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_while_filling_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cache_kills.py", "--kills", "2"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, out = cache_kills.main(), capsys.readouterr().out
    assert code == 0, out
    assert "2 kills while drawing, extracting and decoding: 0 caches not as if never killed" in out


def test_what_differs_is_seen(tmp_path: Path) -> None:
    (tmp_path / "cache" / "in").mkdir(parents=True)
    (tmp_path / "cache" / "in" / "a").write_bytes(b"a")
    whole = cache_kills.contents(tmp_path / "cache")
    assert cache_kills.faults(whole, tmp_path / "cache") == []
    (tmp_path / "cache" / ".b.partial").mkdir()
    (tmp_path / "cache" / "in" / "a").write_bytes(b"b")
    assert cache_kills.faults(whole, tmp_path / "cache") == [".b.partial: only once", "in/a: different"]
