"""The benchmark of the index runs at a small size; its timings are not checked."""

from __future__ import annotations

import pytest
from benchmark import run_benchmark


def test_it_runs_through() -> None:
    pytest.importorskip("faiss")
    sizes = ("--crops=120", "--more=10", "--search=1500", "--width=16", "--queries=3")
    code, out, err = run_benchmark("gallery", *sizes)
    assert code == 0, err
    for title in (
        "| build |",
        "| add 10 |",
        "| one search, exact, median |",
        "| exact |",
        "| FAISS: ivf index over 1500",
    ):
        assert out.count(title) == 1, out
