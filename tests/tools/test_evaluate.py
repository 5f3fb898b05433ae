"""Scores of features and checkpoints from the command line, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from called import Tool

from reid.io.feature_files import save_features
from reid.ranking import evaluate
from reid.records import Features

SCORES = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")


def drawn(seed: int = 0) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, 8))

    def side(count: int, lowest: int) -> Features:
        people = random.integers(lowest, 20, count)
        values = (centres[people] + 1.2 * random.normal(size=(count, 8))).astype(np.float32)
        return Features(values, people, random.integers(1, 4, count))

    return side(40, 1), side(300, -1)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    save_features(tmp_path / "f.npz", *drawn(), feature="input")
    return tmp_path / "f.npz"


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def test_only_the_result_is_on_stdout_for_a_program(tool: Tool, features: Path, tmp_path: Path) -> None:
    ended = tool("evaluate", "--features", features, "--format", "json").ok()
    assert json.loads(ended.out) == content(tmp_path / "f")
    assert "wrote " in ended.err
    ended = tool("evaluate", "--features", features, "--format", "csv")
    rows = list(csv.DictReader(ended.out.splitlines()))
    assert [row["Feature"] for row in rows] == ["input, raw", "input, L2"]
    assert float(rows[0]["mAP"]) == pytest.approx(100 * content(tmp_path / "f")["scores"][0]["mAP"], abs=0.051)
    assert "| f.npz | input, raw |" in tool("evaluate", "--features", features, "--format", "markdown").out


def test_features_of_every_layout_score_the_same(tool: Tool, features: Path, tmp_path: Path) -> None:
    query, gallery = drawn()
    expected = evaluate(query, gallery).to_json()
    ended = tool("evaluate", "--features", features).ok()
    found = content(tmp_path / "f")
    assert (found["dataset"], found["metric"]) == ("f.npz", "euclidean")
    assert set(found) == {"dataset", "metric", "scores"}
    assert [(s["feature"], s["normalized"]) for s in found["scores"]] == [("input", False), ("input", True)]
    for name in SCORES:
        assert found["scores"][0][name] == expected[name]
    assert "f.npz\n" in ended.out and "\ninput, raw " in ended.out and " s; wrote " in ended.out

    arrays, mat = tmp_path / "arrays", {}
    arrays.mkdir()
    for part, side in (("query", query), ("gallery", gallery)):
        np.save(arrays / f"{part}.npy", side.values)
        rows = zip(side.identities, side.cameras, strict=True)
        (arrays / f"{part}.csv").write_text("identity,camera\n" + "".join(f"{i},{c}\n" for i, c in rows))
        mat |= {f"{part}_f": side.values, f"{part}_label": side.identities, f"{part}_cam": side.cameras}
    scipy.io.savemat(tmp_path / "pytorch_result.mat", mat)
    for path in (arrays, arrays / "query.npy", tmp_path / "pytorch_result.mat"):
        tool("evaluate", "--features", path, "--output", tmp_path / "out").ok()
        other = content(tmp_path / "out")["scores"]
        assert [[s[name] for name in SCORES] for s in other] == [[s[name] for name in SCORES] for s in found["scores"]]


def expanded_by_hand(neighbors: int, alpha: float) -> float:
    """mAP with each gallery row, then each query, replaced by its mean with its nearest rows, loop by loop."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1)[:, None]

    query, gallery = drawn()
    rows = unit(gallery.values.astype(np.float64))
    means = []
    for i, row in enumerate(rows):
        cosines = rows @ row
        cosines[i] = -2
        near = np.argsort(-cosines)[:neighbors]
        means.append(row + sum(max(cosines[j], 0) ** alpha * rows[j] for j in near))
    replaced = unit(np.array(means))
    asked = []
    for row in unit(query.values.astype(np.float64)):
        cosines = replaced @ row
        near = np.argsort(-cosines)[:neighbors]
        asked.append(row + sum(max(cosines[j], 0) ** alpha * replaced[j] for j in near))
    return evaluate(
        Features(unit(np.array(asked)), query.identities, query.cameras),
        Features(replaced, gallery.identities, gallery.cameras),
    ).mAP


def test_everything_at_once(tool: Tool, features: Path, tmp_path: Path) -> None:
    means = ("--expand", "alpha", "--augment", "--neighbours", "6", "--alpha", "2")
    also = ("--protocol", "multi-query", "--roc", "--rerank", "--k1", "9", *means)
    ended = tool("evaluate", "--features", features, *also).ok()
    found = content(tmp_path / "f")
    ways = [(s["normalized"], s["variant"], s["alone"]) for s in found["multi_query"]]
    assert ways == [(n, f"multi-query {how}", 0) for n in (False, True) for how in ("mean", "max")]
    assert {*SCORES, "feature", "flip"} <= set(found["multi_query"][0])
    assert found["multi_query"][0]["mAP"] > found["scores"][0]["mAP"]
    assert [(s["k1"], s["k2"], s["variant"]) for s in found["reranked"]] == [(9, 6, "re-ranked")] * 2
    assert [entry["normalized"] for entry in found["verification"]] == [False, True]
    assert found["verification"][0]["tpr_at_fpr"].keys() == {"0.0001", "0.001", "0.01", "0.1"}
    assert [(s["normalized"], s["variant"]) for s in found["expanded"]] == [(True, "augmented, alpha-QE")]
    assert found["expanded"][0]["mAP"] == pytest.approx(expanded_by_hand(6, 2.0), abs=1e-9)
    for words in ("input, raw, multi-query mean", "input, L2, re-ranked", "TPR at FPR", " 0.001 "):
        assert words in ended.out

    single = ("--protocol", "single-shot", "--repeats", "5", "--expand", "aqe")
    ended = tool("evaluate", "--features", features, "--metric", "cosine", *single).ok()
    again = content(tmp_path / "f")
    assert [(s["variant"], s["neighbours"], s["alpha"]) for s in again["expanded"]] == [("AQE", 5, 0)]
    assert again["metric"] == "cosine" and len(again["scores"]) == 1
    assert again["scores"][0]["mAP"] == pytest.approx(found["scores"][1]["mAP"], abs=1e-6)
    assert again["single_shot"][0]["repeats"] == 5 and 0 < again["single_shot"][0]["mean_reciprocal_rank"] <= 1
    assert "mean 1 / rank" in ended.out and "input, cosine" in ended.out


def test_the_nearest_of_each_query(tool: Tool, features: Path, tmp_path: Path) -> None:
    ended = tool("evaluate", "--features", features, "--top-k", "4").ok()
    assert "top_k_input.npz" in ended.out
    query, gallery = (side.values.astype(np.float64) for side in drawn())
    with np.load(tmp_path / "f" / "top_k_input.npz") as found:
        distances = ((query[:, None] - gallery) ** 2).sum(axis=2)
        np.testing.assert_array_equal(found["indices"], distances.argsort(axis=1, kind="stable")[:, :4])
        np.testing.assert_allclose(found["distances"], np.sort(distances, axis=1)[:, :4])
    ended = tool("evaluate", "--features", features, "--top-k", "301")
    ended.fails("must be in [1, 300], at most the number of gallery rows")


def test_images_for_multi_query_that_come_with_the_features(tool: Tool, tmp_path: Path) -> None:
    query, gallery = drawn()
    mat: dict[str, np.ndarray] = {}
    for part, side in (("query", query), ("gallery", gallery)):
        mat |= {f"{part}_f": side.values, f"{part}_label": side.identities, f"{part}_cam": side.cameras}
    scipy.io.savemat(tmp_path / "pytorch_result.mat", mat)
    images = {"mquery_f": query.values[:1], "mquery_label": query.identities[:1], "mquery_cam": query.cameras[:1]}
    scipy.io.savemat(tmp_path / "multi_query.mat", images)
    tool("evaluate", "--features", tmp_path, "--protocol", "multi-query").ok()
    found = content(tmp_path)["multi_query"][0]
    same = (query.identities == query.identities[0]) & (query.cameras == query.cameras[0])
    assert found["alone"] == (~same).sum()


def harmed(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as held:
            arrays = {**held, **changes}
        np.savez(path, **arrays)

    return write


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (harmed(query_values=np.full((40, 8), np.nan)), "40 feature rows hold NaN or infinity"),
        (harmed(query_values=np.zeros((40, 5))), "query features have 5 dimensions, gallery features 8"),
        (harmed(gallery_identities=np.arange(7)), "7 labels for 300 feature rows"),
        (harmed(query_values=np.arange(40)), "are these identities or cameras?"),
        (harmed(gallery_identities=np.full(300, 99)), "no query identity (such as"),
        (harmed(gallery_cameras=np.ones(300, int), query_cameras=np.ones(40, int)), "all images are from camera 1"),
        (harmed(query_identities=np.zeros(40, int)), "junk and distractors cannot be queries"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "corrupt or not a feature file"),
        (Path.unlink, "no such feature file"),
    ],
)
def test_bad_features_are_one_line_and_exit_code_2(
    tool: Tool, features: Path, tmp_path: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(features)
    ended = tool("evaluate", "--features", features).fails(words, alone=True)
    assert ended.err.startswith("error: ")
    assert not (tmp_path / "f" / "evaluation.json").exists()


def test_bad_arguments(tool: Tool, features: Path) -> None:
    ended = tool("evaluate", "--features", features, "--protocol", "market1501")
    assert ended.code == 2
    tool("evaluate", "--features", features, "TEST.FLIP", "True").fails("takes no configuration")
    ended = tool("evaluate", "--features", features, "--protocol", "single-shot", "--repeats", "0")
    ended.fails("repeats must be a whole number of at least 1, not 0")
    ended = tool("evaluate", "--features", features, "--protocol", "single-shot", "--seed", "-1")
    ended.fails("seed must be a whole number of at least 0, not -1")
    tool("evaluate", "--features", features, "--whiten-from", features).fails("--whiten-from requires --whiten")
    ended = tool("evaluate", "--features", features.parent, "--ground-truth", features, "--roc", "--top-k", "5")
    ended.fails("remove --roc, --top-k")
    tool("evaluate", "--features", features, "--expand", "aqe", "--neighbours", "400").fails("[1, 300]")


def test_across_domains(train: Tool, tool: Tool, market: Path, tmp_path: Path) -> None:
    """Trained on one dataset, scored on another: one config file names it."""
    train("STEP0.EPOCHS", "1", "RRI.MAX_ROUNDS", "0", "RRI.CONTROL", "False").ok()
    run = tmp_path / "run"
    before = (run / "scores.json").read_text()
    (tmp_path / "other.yaml").write_text(
        "DATASETS: {NAME: synthetic, SYNTHETIC: {SIZE: tiny, LAYOUT: duke, SEED: 3}}\nTEST: {FLIP: true}\n"
    )
    weights = run / "checkpoints" / "rri_last.pth"
    tool("evaluate", "--weights", weights, "--config-file", tmp_path / "other.yaml", "--protocol", "multi-query").ok()
    found = content(weights.parent)
    assert found["dataset"] == "synthetic-duke-tiny-seed3" != json.loads(before)["dataset"]
    assert {(s["feature"], s["normalized"], s["flip"]) for s in found["scores"]} == {
        (f, n, m) for f in ("input", "output") for n in (False, True) for m in (False, True)
    }
    assert len(found["multi_query"]) == 16
    assert {s["pool"] for s in found["multi_query"]} == {"query and gallery"}

    # The same checkpoint on a Market-1501 that brings hand-drawn boxes: of one query's person, and of nobody's.
    first = min((market / "query").iterdir())
    (market / "gt_bbox").mkdir()
    for name in (first.name, "0999_c1s1_000001_00.jpg"):
        shutil.copy(first, market / "gt_bbox" / name)
    other = ("DATASETS.NAME", "market1501", "DATASETS.ROOT", market, "DATASETS.STRICT", "False")
    tool("evaluate", "--weights", weights, "--protocol", "multi-query", *other).ok()
    found = content(weights.parent)
    assert found["dataset"] == "market1501"
    assert found["labels"]["queries_without_match"] == found["scores"][0]["dropped_queries"]
    queries = len(list((market / "query").iterdir()))
    assert {(s["pool"], s["alone"]) for s in found["multi_query"]} == {("images of their own", queries - 1)}
    # A query that is its own only box stays what it is.
    assert found["multi_query"][0]["mAP"] == found["scores"][0]["mAP"]
    assert (run / "scores.json").read_text() == before


def test_the_ground_truth_of_revisited_oxford_and_paris(tool: Tool, tmp_path: Path) -> None:
    # On a line, two queries at 0 and 10. Query 0: easy 1 (at 1), hard 3 (at 3), junk 2 (at 2); 0.5 is wrong.
    #   easy: 0.5 wrong, 1 hit at rank 2; 2 and 3 are passed over -> AP (0 + 1/2) / 2
    #   medium: hits at 2 and 3 -> ((0 + 1/2) / 2 + (1/2 + 2/3) / 2) / 2
    #   hard: 1 is passed over, so the hit is at rank 2 again
    # Query 1: easy 10 at rank 1, nothing hard -> AP 1, and left out of hard.
    folder = tmp_path / "landmarks"
    folder.mkdir()
    np.save(folder / "query.npy", np.array([[0.0], [10.0]], np.float32))
    np.save(folder / "gallery.npy", np.array([[0.5], [1.0], [2.0], [3.0], [10.0], [99.0]], np.float32))
    truth = [{"easy": [1], "hard": [3], "junk": [2]}, {"easy": [4], "hard": [], "junk": []}]
    content = {
        "imlist": list("abcde"),
        "qimlist": ["q", "r"],
        "gnd": [{"bbx": [0, 0, 1, 1], **lists} for lists in truth],
    }
    path = tmp_path / "gnd_tiny.json"
    path.write_text(json.dumps(content))
    result = tool("evaluate", "--features", folder, "--ground-truth", path, "--metric", "euclidean").ok()
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["dataset"] == "gnd_tiny" and found["scores"] == []
    means = {setup: scores["mAP"] for setup, scores in found["revisited"].items()}
    assert means["easy"] == pytest.approx((1 / 4 + 1) / 2)
    assert means["medium"] == pytest.approx(((1 / 4 + 7 / 12) / 2 + 1) / 2)
    assert means["hard"] == pytest.approx(1 / 4)
    assert found["revisited"]["hard"]["queries"] == 1
    assert re.search(r"^hard +25\.0 ", result.out, re.M)

    np.save(folder / "query.npy", np.zeros((3, 1), np.float32))
    tool("evaluate", "--features", folder, "--ground-truth", path).fails("3 query and 6 gallery rows")
    tool("evaluate", "--features", path, "--ground-truth", path).fails("query.npy")
