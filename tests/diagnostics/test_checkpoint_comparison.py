"""Comparison of two checkpoints on the same queries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid.diagnostics.comparison import align, compare_rankings, is_gain_of_rri
from reid.diagnostics.retrieval import CheckpointFeatures, describe_retrieval
from reid.errors import InputError
from reid.ranking import evaluate, rank_matches
from reid.records import Features

ROWS = [("step0", 0, 5), ("decorrelate", 1, 0), ("restraint", 1, 3)]


def random_features(seed: int = 0) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)

    def part(name: str, count: int, lowest: int) -> Features:
        labels = random.integers(lowest, 9, count), random.integers(1, 4, count)
        paths = tuple(f"/data/{name}/{i:03d}.jpg" for i in range(count))
        return Features(random.normal(size=(count, 5)).astype(np.float32), *labels, paths)

    return part("query", 40, 1), part("gallery", 90, -1)


def retrained(features: Features, seed: int) -> Features:
    """Other embeddings of the same images."""
    values = features.values + np.random.default_rng(seed).normal(size=features.values.shape).astype(np.float32)
    return dataclasses.replace(features, values=values)


def shuffled(features: Features, *, folder: str = "/data") -> Features:
    order = np.random.default_rng(9).permutation(len(features.values))
    return Features(
        features.values[order],
        features.identities[order],
        features.cameras[order],
        tuple(features.paths[i].replace("/data", folder) for i in order),
    )


def test_change_is_counted_by_hand() -> None:
    query, gallery = random_features()
    query.identities[3] = 77  # nothing to find
    before = rank_matches(query, gallery)
    after = rank_matches(retrained(query, 1), retrained(gallery, 2))
    found = compare_rankings(before, after)
    for i in range(len(query.values)):
        if i == 3:
            assert np.isnan(found.difference[i]) and found.label(i) == "kept"
            continue
        was, now = before.hits(i)[0] == 1, after.hits(i)[0] == 1
        assert found.label(i) == ("repaired" if now and not was else "broken" if was and not now else "kept")
        ap = [np.mean([(j + 1) / r for j, r in enumerate(ranking.hits(i))]) for ranking in (before, after)]
        assert found.difference[i] == pytest.approx(ap[1] - ap[0], abs=1e-12)
    assert found.repaired.any() and found.broken.any()
    gained = (after.scores().rank1 - before.scores().rank1) * 39
    assert found.repaired.sum() - found.broken.sum() == pytest.approx(gained)
    order = found.largest_changes(100)
    assert len(order) == 39 and 3 not in order
    assert (np.diff(np.abs(found.difference[order])) <= 0).all()
    with pytest.raises(ValueError, match="same queries"):
        compare_rankings(before, rank_matches(*random_features(5)))


def test_rows_are_aligned_by_file_name() -> None:
    query, _ = random_features()
    moved = shuffled(query, folder="/elsewhere")
    back = align(moved, query, part="query")
    assert np.array_equal(back.values, query.values) and back.paths == query.paths
    bare = dataclasses.replace(query, paths=())
    assert align(bare, query, part="query").paths == query.paths


def test_names_that_repeat_are_reported_apart_by_their_folders() -> None:
    query, _ = random_features()
    paths = tuple(f"/cam{i}/a.jpg" for i in range(len(query.values)))
    query = dataclasses.replace(query, paths=paths)
    assert align(shuffled(query), query, part="query").paths == paths


def test_images_on_one_side_only_are_reported() -> None:
    query, gallery = random_features()
    fewer = Features(query.values[1:], query.identities[1:], query.cameras[1:], query.paths[1:])
    for one, other in ((fewer, query), (query, fewer)):
        with pytest.raises(InputError, match=r"query image 000\.jpg is on one side only .*--config-file"):
            align(one, other, part="query")
    relabeled = dataclasses.replace(query, cameras=query.cameras % 3 + 1)
    with pytest.raises(InputError, match=r"query row 0 \(/data/query/000\.jpg\) is identity \d, camera \d on one side"):
        align(relabeled, query, part="query")
    bare = dataclasses.replace(fewer, paths=())
    with pytest.raises(InputError, match="40 query images on one side, 39 on the other"):
        align(bare, query, part="query")
    twice = dataclasses.replace(gallery, paths=(gallery.paths[0], gallery.paths[0], *gallery.paths[2:]))
    with pytest.raises(InputError, match="the gallery contains an image twice"):
        align(twice, twice, part="gallery")


def content(run: str, rows: list[tuple[str, int, int]] = ROWS, **position: Any) -> dict[str, Any]:
    place = {"run": run, "stage": "", "round": 1, "epoch": 0} | position
    return {"position": place, "rows": [dict(zip(("stage", "round", "epochs"), row, strict=True)) for row in rows]}


def test_a_gain_needs_the_control_of_the_same_run(tmp_path: Path) -> None:
    a, b = tmp_path / "rri_last.pth", tmp_path / "control_last.pth"
    rri, control = content("rri"), content("control")
    assert is_gain_of_rri(a, rri, b, control) == (True, "RRI and its control, each after 8 epochs")
    half = {"stage": "relaxation", "epoch": 1}
    assert is_gain_of_rri(a, content("rri", **half), b, content("control", **half))[0]
    refused = [
        ((b, control, a, rri), "not a checkpoint of an RRI run and one of its control"),
        ((a, rri, tmp_path / "rri_r01_restraint.pth", rri), "not a checkpoint of an RRI run and one of its control"),
        ((tmp_path / "mine.pth", rri, b, control), "not a checkpoint of an RRI run and one of its control"),
        ((a, {}, b, {}), "not a checkpoint of an RRI run and one of its control"),
        ((a, rri, tmp_path / "other" / b.name, control), "control of a different run"),
        ((a, rri, b, content("control", ROWS[:2])), "RRI after 8 epochs and the control after 5"),
        ((a, content("rri", **half), b, control), "RRI after 9 epochs and the control after 8"),
        ((a, content("rri", ROWS[:1]), b, content("control", ROWS[:2])), "with different schedules"),
    ]
    for arguments, reason in refused:
        is_gain, given_reason = is_gain_of_rri(*arguments)
        assert not is_gain and reason in given_reason


def test_the_content_of_a_comparison() -> None:
    query, gallery = random_features()
    query.identities[3] = 77
    other = retrained(query, 1), retrained(gallery, 2)
    sides = [
        CheckpointFeatures("rri.pth", query, gallery, "input"),
        CheckpointFeatures("control.pth", shuffled(other[0]), shuffled(other[1]), "input"),
    ]
    found = describe_retrieval("drawn", sides, queries=7, top=4, method=None, gain=(True, "why"))
    json.dumps(found, allow_nan=False)
    for side, pair in zip(found["sides"], ((query, gallery), other), strict=True):
        with pytest.warns(UserWarning, match="1 of 40 queries"):
            scores = evaluate(*pair)
        assert side["scores"] == dataclasses.replace(scores, feature="input").to_json()
    comparison, columns = found["comparison"], found["queries"]
    assert comparison["name"] == "gain of RRI" and comparison["reason"] == "why"
    one, two = (side["scores"] for side in found["sides"])
    assert comparison["mAP"] == pytest.approx(one["mAP"] - two["mAP"])
    first = np.array(columns["first_hit"])
    assert comparison["repaired"] == ((first[0] == 1) & (first[1] > 1)).sum()
    assert comparison["broken"] == ((first[0] > 1) & (first[1] == 1)).sum()
    cells = ("repaired", "broken", "right_in_both", "wrong_in_both")
    assert sum(comparison[name] for name in cells) == 39
    assert columns["average_precision"][0][3] is None and columns["first_hit"][0][3] == 0
    ap = np.array(columns["average_precision"], dtype=float)
    assert comparison["higher_ap"] == (ap[0] > ap[1]).sum() and comparison["lower_ap"] == (ap[0] < ap[1]).sum()
    assert found["listed"] == {"rule": "largest change of AP", "top": 4, "count": 7}
    rows = [entry["query"] for entry in found["lists"]]
    change_of_ap = np.nan_to_num(np.abs(ap[0] - ap[1]), nan=-1)
    assert rows == sorted(range(40), key=lambda i: -change_of_ap[i])[:7]
    for entry in found["lists"]:
        assert entry["path"] == query.paths[entry["query"]] and len(entry["sides"]) == 2
        assert entry["difference"] == pytest.approx(ap[0][entry["query"]] - ap[1][entry["query"]])
        for i, side in enumerate(entry["sides"]):
            assert side["first_hit"] == first[i][entry["query"]] and len(side["answers"]) == 4


def test_the_content_of_one_checkpoint() -> None:
    found = describe_retrieval(
        "drawn", [CheckpointFeatures("a.pth", *random_features(), "output", True)], queries=5, method="pca"
    )
    assert found["comparison"] is None and found["listed"]["rule"] == "lowest AP"
    ap = found["queries"]["average_precision"][0]
    assert [entry["sides"][0]["average_precision"] for entry in found["lists"]] == sorted(ap)[:5]
    assert found["lists"][0]["difference"] is None and found["lists"][0]["change"] is None
    scores = found["sides"][0]["scores"]
    assert (scores["feature"], scores["normalized"], scores["flip"]) == ("output", True, False)
    assert found["sides"][0]["map"]["method"] == "pca"


@pytest.mark.parametrize(
    ("queries", "top", "message"), [(501, 10, "0 to 500 queries"), (-1, 10, "-1"), (5, 0, "not 0")]
)
def test_sizes_out_of_range_are_reported(queries: int, top: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_retrieval(
            "drawn", [CheckpointFeatures("a.pth", *random_features(), "input")], queries=queries, top=top
        )
