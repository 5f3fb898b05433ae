"""The benchmarks of ranking run at a small size; their timings are not checked."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from benchmark import BENCHMARKS, run_benchmark

from reid.ranking import rank_matches


def run(name: str, *arguments: str) -> str:
    code, out, err = run_benchmark(name, *arguments)
    assert code == 0, err
    return out


def cells(output: str, start: str) -> list[str]:
    """Return the cells of the table row that begins with `start`."""
    rows = [line for line in output.splitlines() if line.startswith(f"| {start}")]
    assert len(rows) == 1, output
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


# A rank.py with the interface of a competitor; it ranks by the protocol, one query after the other.
RANK = """
import numpy as np

def evaluate_rank(distances, queries, gallery, query_cameras, gallery_cameras, max_rank=50, use_cython=True):
    curves, precisions = [], []
    for row, person, camera in zip(distances, queries, query_cameras):
        order = np.argsort(row, kind="stable")
        order = order[(gallery[order] != person) | (gallery_cameras[order] != camera)]
        hits = gallery[order] == person
        if hits.any():
            curves.append((np.cumsum(hits) > 0)[:max_rank])
            precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return np.mean(curves, axis=0), precisions, []
"""


def test_ranking_of_saved_features_agrees_with_a_competitor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "fastreid" / "evaluation").mkdir(parents=True)
    (tmp_path / "fastreid" / "evaluation" / "rank.py").write_text(RANK, encoding="utf-8")
    identities = np.arange(40) % 9 + 1, np.arange(600) % 12 - 1
    for side, labels in zip(("query", "gallery"), identities, strict=True):
        values = rng.normal(size=(len(labels), 16)) + 0.3 * labels[:, None]
        np.save(tmp_path / f"{side}.npy", values.astype(np.float32))
        np.save(tmp_path / f"{side}_ids.npy", labels)
        np.save(tmp_path / f"{side}_cameras.npy", rng.integers(1, 4, len(labels)))
    output = run("ranking", f"--features={tmp_path}", "--rounds=1", f"--fastreid={tmp_path}")
    assert "40 x 550 x 16 and 50 junk rows" in output
    plain, integers, competitor = (
        cells(output, name) for name in ("evaluate, float32", "evaluate, integers", "fast-reid")
    )
    assert plain[5:] == integers[5:] == competitor[6:]
    assert 0 < float(plain[6]) < 1


def test_distractors_make_it_harder_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from synthetic_features import clustered

    output = run("distractors", "--queries=50", "--width=16", "--rounds=1", "--gallery=20000", f"--folder={tmp_path}")
    plain, integers = (cells(output, f"evaluate, {name}") for name in ("float32", "integers"))
    assert plain[5:] == integers[5:]
    assert 0 < float(plain[6]) < rank_matches(*clustered(50, 15913, 16)).scores().mAP - 0.01
    assert not list(tmp_path.iterdir())


def test_search_and_its_table_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "benchmarks"
    output = run("nearest", "--queries=50", "--gallery=2000", "--width=16", "--k=5", f"--save={folder}")
    assert cells(output, "flat")[3] == "1.0000"
    tables = run_path(str(BENCHMARKS.parent / "docs" / "tables.py"))
    monkeypatch.setitem(tables["benchmark_table"].__globals__, "RESULTS", tmp_path)
    shown = tables["benchmark_table"]("nearest").splitlines()
    assert [line for line in output.splitlines() if line.startswith("|")] == shown[:-2]
    assert shown[-1].startswith("50 x 2000 x 16, 1 thread(s), k = 5; commit ") and shown[-1].endswith(".")


def test_the_fair_share_beside_busy_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = run_path(str(BENCHMARKS / "busy.py"))
    one, every, chosen = names["ONE"], names["ALL"], names["CHOSEN"]
    found = {(one, 0): [150.0, 160.0, 170.0], (every, 0): [220.0]}
    found |= {(chosen, 0): [225.0], (chosen, 1): [144.0], (chosen, 4): [64.0]}
    assert names["_table"](found, 2, [0, 1, 4]) == [(0, 225, 225, None), (1, 144, 160, None), (4, 64, 64, None)]
