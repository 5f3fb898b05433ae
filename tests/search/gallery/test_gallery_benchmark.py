"""The benchmarks of the index run at a small size; their timings are not checked."""

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
        "| one search, exact |",
        "| exact |",
        "| FAISS: ivf index over 1500",
    ):
        assert out.count(title) == 1, out


def test_large_search_compares_ours_with_others() -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("numkong")
    sizes = ("--gallery=3000", "--width=64", "--decay=6", "--queries=4", "--rounds=1", "--faiss", "flat", "hnsw")
    code, out, err = run_benchmark("large_search", *sizes, "--faiss-rows=2000", "--threads=1")
    assert code == 0, err
    recall = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in out.splitlines() if "|" in line}
    assert recall["exact, with codes"] == recall["exact, plain"] == recall["torch"] == recall["FAISS flat"] == "1.0000"
    assert "32 bytes per row" in out and "over 2,000 rows" in out and float(recall["FAISS hnsw"]) > 0.9
