"""The comparison of runs shows their files, and ranks only comparable scores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Page, percent
from synthetic_run import SyntheticRun

from reid.config.keys import MOVABLE
from reid.errors import InputError
from reid.report.comparison import config_differences, write_comparison
from reid.report.history import read_history


def pair(score: dict[str, Any]) -> str:
    return f"{percent(score['rank1'])} / {percent(score['mAP'])}"


def compare(folder: Path, *runs: SyntheticRun) -> Page:
    return Page(write_comparison([run.write() for run in runs], folder / "comparison.html"))


def by_name(page: Page, table: str) -> dict[str, list[str]]:
    return {row[0].strip(): row[1:] for row in page.tables[table][1:]}


def test_the_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    runs = [SyntheticRun(tmp_path / f"run{i}", seed=i, rounds=1 + i, config=f"SEED: {i}\n") for i in range(3)]
    page = compare(tmp_path, *runs)
    results, progress = by_name(page, "results"), by_name(page, "progress")
    assert list(results) == list(progress) == ["run0", "run1", "run2"]
    for i, run in enumerate(runs):
        final, control = run.summary["final"], run.summary["control_final"]
        gain = [round(100 * final[name], 1) - round(100 * control[name], 1) for name in ("rank1", "mAP")]
        assert results[f"run{i}"] == [
            *(pair(run.rows[0]["scores"][0]), pair(final), pair(control), f"{gain[0]:+.1f} / {gain[1]:+.1f}"),
            *("final Restraint", f"osnet_x0_25, from scratch, seed {i}"),
        ]
        rri = [row for row in run.rows if row["run"] == "rri"]
        path = [f"{row['correlation']:.4f}" for row in rri if row["stage"] in ("step0", "relaxation")]
        seconds = [sum(r["seconds"] for r in run.rows if r["run"] == name) for name in ("rri", "control")]
        assert len(path) == 2 + i
        assert progress[f"run{i}"] == [
            *(" → ".join(path), str(1 + i), str(4 + 5 * (1 + i) + 3)),
            *(*(f"{s:,.0f}" for s in seconds), "converged"),
        ]
    assert page.tables["differences"] == [["key", "run0", "run1", "run2"], ["SEED", "0", "1", "2"]]
    assert "datasets" not in page.texts and "variants" not in page.texts


def test_the_highest_of_a_dataset_are_bold(tmp_path: Path) -> None:
    runs = [SyntheticRun(tmp_path / f"run{i}", seed=i) for i in range(3)]
    page = compare(tmp_path, *runs)
    best = {name: max(run.summary["final"][name] for run in runs) for name in ("rank1", "mAP")}
    assert re.findall(r"<b>([^<]+)</b>", page.source) == [
        percent(run.summary["final"][name]) for run in runs for name in best if run.summary["final"][name] == best[name]
    ]


def test_datasets_are_not_ranked_against_each_other(tmp_path: Path) -> None:
    runs = [SyntheticRun(tmp_path / f"run{i}", seed=i, dataset=name) for i, name in enumerate(("b", "a", "b"))]
    page = compare(tmp_path, *runs)
    assert "2 datasets" in page.texts["datasets"] and "not comparable" in page.texts["datasets"]
    # Runs on the same dataset are grouped below its name, and share charts.
    assert list(by_name(page, "results")) == ["b", "run0", "run2", "a", "run1"]
    charts = [a["aria-label"] or "" for _, a in page.tags if a.get("role") == "img"]
    assert [chart.partition(". ")[0] for chart in charts] == [
        f"{name}, {dataset}"
        for dataset in ("b", "a")
        for name in ("S(W) of the Eigenlayer", "Training loss", "rank-1", "mAP", "CMC of the last stage")
    ]
    assert all(("run1" in chart) != ("run0" in chart and "run2" in chart) for chart in charts)
    bold = re.findall(r"<b>([^<]+)</b>", page.source)
    assert bold and percent(runs[1].summary["final"]["rank1"]) not in bold


def test_scores_of_different_features_are_not_ranked(tmp_path: Path) -> None:
    runs = [SyntheticRun(tmp_path / f"run{i}", seed=i) for i in range(2)]
    runs[1].summary["final"] = runs[1].rows[-1]["scores"][2]
    page = compare(tmp_path, *runs)
    assert "different features" in page.texts["variants"]
    assert "<b>" not in page.source
    assert [row[6] for row in page.tables["results"]] == [
        *("scores of", "Eigenlayer input, raw, no flip test", "Eigenlayer output, raw, no flip test")
    ]


def test_no_gain_without_a_control(tmp_path: Path) -> None:
    page = compare(tmp_path, *(SyntheticRun(tmp_path / name, control=name == "with") for name in ("with", "without")))
    results = by_name(page, "results")
    assert "–" not in results["with"][:4] and results["without"][2:4] == ["–", "–"]
    assert page.source.count("without: No control was trained, so no gain is reported") == 1
    assert "with: No control" not in page.source


def test_unfinished_runs(tmp_path: Path, drawn_charts: None) -> None:
    whole, cut, started = (SyntheticRun(tmp_path / name, seed=i) for i, name in enumerate(("whole", "cut", "started")))
    stages = [(line["kind"], line.get("stage"), line.get("round")) for line in cut.lines]
    cut.lines = cut.lines[: stages.index(("epoch", "restraint", 2)) + 2]
    started.lines = started.lines[:1]
    folders = [whole.write(), cut.write(scores=False, cut='{"kind": "ep'), started.write(scores=False)]
    (folders[2] / "config.yaml").unlink()
    page = Page(write_comparison(folders, tmp_path / "page.html"))
    results, progress = by_name(page, "results"), by_name(page, "progress")
    assert results["cut"][:5] == [
        *(pair(cut.rows[0]["scores"][0]), pair(cut.rows[4]["scores"][0]), "–", "–", "decorrelate 2")
    ]
    assert progress["cut"][-1] == "unfinished: Restraint 2, epoch 2"
    assert results["started"][:5] == ["–"] * 5 and progress["started"][-1] == "unfinished: no epoch"
    assert "cut: 1 line of log.jsonl could not be read" in page.source
    assert "Without a config.yaml: started." in page.source
    assert "The configurations are equal" in page.texts["differences"]
    assert "<b>" not in page.source, "only finished runs are ranked, and there is only one"
    label = next(a["aria-label"] or "" for _, a in page.tags if a.get("role") == "img")
    assert "whole: " in label and "cut: " in label and "started" not in label


def test_many_runs(tmp_path: Path, drawn_charts: None) -> None:
    """With more runs than colors each has its own line style, and the page stays small."""
    runs = [SyntheticRun(tmp_path / f"run{i:02}", seed=i, rounds=1, final=False) for i in range(20)]
    page = compare(tmp_path, *runs)
    lines = re.findall(r'<th scope="row"[^>]*><svg.*?<path (.*?)/></svg>(run\d+)', page.source)
    assert [name for _, name in lines] == [f"run{i:02}" for i in range(20)] * 2
    assert len({look for look, _ in lines}) == 20
    assert len(page.source) < 1_000_000
    chart = re.findall(r"<figure.*?</figure>", page.source, flags=re.DOTALL)[0]
    assert set(re.findall(r"var\(--(line\d)\)", chart)) == {f"line{i}" for i in range(1, 9)}


def test_the_page_is_self_contained(tmp_path: Path, drawn_charts: None) -> None:
    evil = "<img src=x onerror=alert(1)>$x_1$&"
    page = compare(tmp_path, SyntheticRun(tmp_path / evil, dataset=evil), SyntheticRun(tmp_path / "b", seed=1))
    assert not [tag for tag, _ in page.tags if tag in ("img", "script", "link", "iframe")]
    assert "http://" not in page.source and "https://" not in page.source
    assert evil in by_name(page, "results")
    names = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(names) == len(set(names))


def test_differing_keys_only(tmp_path: Path) -> None:
    texts = [
        "A: {SAME: 1, LIST: [1, 2], GONE: x}\nOUTPUT_DIR: one\nDATASETS: {ROOT: here, NAME: a}\n",
        "A: {SAME: 1, LIST: [1, 3]}\nOUTPUT_DIR: two\nDATASETS: {ROOT: there, NAME: ''}\nMODEL: {DEVICE: cuda}\n",
    ]
    histories = []
    for i, text in enumerate(texts):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "config.yaml").write_text(text)
        histories.append(read_history(folder))
    assert config_differences(histories, MOVABLE) == [
        ("A.GONE", ["x", "–"]),
        ("A.LIST", ["1, 2", "1, 3"]),
        ("DATASETS.NAME", ["a", "empty"]),
    ]


def test_invalid_input(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "run").write()
    output = tmp_path / "comparison.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no run"):
        write_comparison([run, tmp_path / "empty"], output)
    with pytest.raises(InputError, match="two different runs or more"):
        write_comparison([run, run / ".." / "run"], output)
    assert not output.exists()
    with pytest.raises(InputError, match="is a folder: name the file"):
        write_comparison([run, SyntheticRun(tmp_path / "b").write()], tmp_path)
