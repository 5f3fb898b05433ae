"""The short form of the damaged indexes, and that faults are seen."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from fault import index_damage

from reid.search.gallery import manifest_rows


def test_damaged_indexes_are_refused_or_equal(tmp_path: Path) -> None:
    manifests, others, faults = index_damage.run(tmp_path, cases=50, seed=1)
    assert faults == []
    assert manifests.total() + others.total() == 50
    assert min(manifests["equal"], manifests["refused"], others["refused"]) > 0


def test_a_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = index_damage.make(tmp_path / "whole")
    expected = index_damage.read(whole)
    with index_damage._connect(whole) as connection:
        connection.execute("UPDATE images SET identity = '8' WHERE path = '0/c0_0.jpg'")
    assert index_damage.judge(whole, expected, ())[0] == "refused"
    monkeypatch.setattr(manifest_rows, "_check", lambda *arguments: None)
    assert index_damage.judge(whole, expected, ()) == ("silently wrong", "reading")

    def fail(*arguments: object) -> None:
        raise KeyError("digest")

    monkeypatch.setattr(manifest_rows, "_check", fail)
    assert index_damage.judge(whole, expected, ())[0] == "traceback"


def test_an_interrupted_commit_is_undone(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    whole = index_damage.make(tmp_path / "whole")
    expected = index_damage.read(whole)
    index_damage.interrupt(whole)
    with sqlite3.connect(f"file:{whole / 'manifest.sqlite'}?immutable=1", uri=True) as connection:
        changed = connection.execute("SELECT count(*) FROM images WHERE camera LIKE 'changed%'")
        assert changed.fetchone()[0] > 0  # as the file is without its journal
    assert index_damage.read(whole) == expected
