"""The short form of the kills while indexing, and that it sees what it is to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault import index_kills

from reid.search.gallery import Gallery, read_snapshot
from reid.search.gallery.manifest import write_transaction
from reid.search.gallery.manifest_rows import change_everything

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_while_indexing() -> None:
    ended = subprocess.run(
        [sys.executable, "tests/fault/index_kills.py", "--kills", "6"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        text=True, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 kills while indexing: 6 with nothing lost, double or wrong" in ended.stdout


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
