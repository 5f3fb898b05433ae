"""The benchmark of Milvus runs at a small size; its timings are not checked."""

from __future__ import annotations

import pytest
from benchmark import run_benchmark


def test_it_runs_through() -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    code, out, err = run_benchmark("milvus", "--images=60", "--width=16", "--queries=3")
    assert code == 0, err
    assert "| folder, exact |" in out and "| 1.0000 | 1.0000 |" in out.partition("| Milvus |")[2]
