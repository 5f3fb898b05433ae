"""The short form of the kills while indexing, and that it sees what it is to see."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from fault import index_kills

from reid.search.gallery import Gallery, read_snapshot
from reid.search.gallery.manifest import write_transaction
from reid.search.gallery.manifest_rows import change_everything


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_while_indexing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["index_kills.py", "--kills", "3"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, out = index_kills.main(), capsys.readouterr().out
    assert code == 0, out
    assert "3 kills while indexing: 3 with nothing lost, double or wrong" in out


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    crops, old = index_kills.draw(tmp_path)
    assert index_kills.faults(old, crops, whole=False) == []
    assert index_kills.faults(old, crops, whole=True) != []
    index_kills.index(old, crops)
    assert index_kills.faults(old, crops, whole=True) == []
    old.with_suffix(".said").write_text(f"0001.jpg {'0' * 64}\n")
    assert index_kills.faults(old, crops, whole=False) == ["0001.jpg: committed and lost"]
    old.with_suffix(".said").unlink()
    with Gallery.open(old) as gallery:
        connection = gallery._connection
        with write_transaction(connection), change_everything(connection):
            # As if the writer had confused two contents: the digest of one moves to the row of the other.
            (one,), (other,) = connection.execute("SELECT digest FROM contents WHERE place IN (3, 4) ORDER BY place")
            for place, digest in ((3, b""), (4, one), (3, other)):
                connection.execute("UPDATE contents SET digest = ? WHERE place = ?", (digest, place))
    wrong = index_kills.faults(old, crops, whole=False)
    assert len(wrong) >= 2 and all("features of another image" in told for told in wrong)
    assert len(read_snapshot(old).crops) == index_kills.IMAGES
