"""Search for a checkpoint's scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from reid.errors import InputError
from reid.inference.export.metadata import ModelMetadata
from reid.inference.export.scores import find_scores, read_scores


@pytest.fixture
def run(tmp_path: Path) -> SyntheticRun:
    drawn = SyntheticRun(tmp_path / "run", rounds=2)
    drawn.write()
    (tmp_path / "run" / "checkpoints").mkdir()
    return drawn


def row_of(run: SyntheticRun, name: str, stage: str, round: int) -> dict[str, object]:
    (row,) = [r for r in run.rows if (r["run"], r["stage"], r["round"]) == (name, stage, round)]
    return row


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("rri_step0", ("rri", "step0", 0)),
        ("control_step0", ("rri", "step0", 0)),
        ("rri_r01_restraint", ("rri", "restraint", 1)),
        ("control_r02_relaxation", ("control", "relaxation", 2)),
        ("rri_last", ("rri", "restraint", 3)),
        ("control_last", ("control", "restraint", 3)),
    ],
)
def test_the_row_of_the_checkpoint(run: SyntheticRun, name: str, row: tuple[str, str, int]) -> None:
    wanted = row_of(run, *row)
    checkpoint = run.folder / "checkpoints" / f"{name}.pth"
    found = find_scores(checkpoint, float(str(wanted["correlation"])), "id")
    assert found is not None and (found.dataset, found.source) == ("market1501", "scores.json")
    assert list(found.scores) == wanted["scores"]
    assert find_scores(checkpoint, 0.999 * float(str(wanted["correlation"])), "id") is None


def test_the_last_network_is_compared_with_its_control(run: SyntheticRun) -> None:
    content = json.loads((run.folder / "scores.json").read_text())
    names = ("rri_last", "control_last")
    rows = [row_of(run, name.split("_")[0], "restraint", 3) for name in names]
    paths = [run.folder / "checkpoints" / f"{name}.pth" for name in names]
    found = [find_scores(path, float(str(row["correlation"])), "id") for path, row in zip(paths, rows, strict=True)]
    assert found[0] and found[0].gain == {key: content.get(key) for key in ("final", "control_final", "difference")}
    assert found[1] and found[1].gain is None


def test_a_run_that_goes_on_is_ahead_of_its_rows(run: SyntheticRun) -> None:
    scores = run.folder / "scores.json"
    content = json.loads(scores.read_text())
    last = run.folder / "checkpoints" / "rri_last.pth"
    correlation = row_of(run, "rri", "restraint", 3)["correlation"]
    scores.write_text(json.dumps({**content, "stopped": None}))
    assert find_scores(last, correlation, "id") is None  # type: ignore[arg-type]
    content["rows"] = [r for r in content["rows"] if (r["run"], r["round"]) != ("control", 3)]
    scores.write_text(json.dumps(content))
    assert find_scores(last, correlation, "id") is not None  # type: ignore[arg-type]
    unfinished = row_of(run, "control", "relaxation", 2)["correlation"]
    assert find_scores(last.with_name("control_last.pth"), unfinished, "id") is None  # type: ignore[arg-type]
    row = json.dumps({**content["rows"][-1], "correlation": 10**400})
    for broken in ("", "[1]", '{"rows": 3}', '{"rows": [1]}', f'{{"rows": [{row}], "stopped": "max_rounds"}}'):
        scores.write_text(broken)
        assert find_scores(last, correlation, "id") is None  # type: ignore[arg-type]


def test_an_evaluation_is_taken_where_it_can_only_be_this_ones(tmp_path: Path) -> None:
    score = {"feature": "input", "normalized": True, "flip": False, "rank1": 0.5, "mAP": 0.25}
    plain = {**score, "normalized": False}
    evaluation, checkpoint = tmp_path / "evaluation.json", tmp_path / "model.pth"
    checkpoint.touch()
    assert find_scores(checkpoint, 0.5, "id") is None
    content = {"dataset": "d", "model_id": "id", "metric": "euclidean"}
    evaluation.write_text(json.dumps({**content, "scores": [plain, score]}))
    found = find_scores(checkpoint, 0.5, "id")
    assert found is not None and found.scores == (plain, score) and found.source == "evaluation.json"
    assert find_scores(checkpoint, 0.5, "that of another network, or with other preprocessing") is None
    for wrong in (-5.0, math.nan, 10**400, "0.5"):
        evaluation.write_text(json.dumps({**content, "scores": [{**score, "mAP": wrong}]}))
        assert find_scores(checkpoint, 0.5, "id") is None
    evaluation.write_text(json.dumps({**content, "scores": [plain, score], "metric": "cosine"}))
    assert read_scores(evaluation).scores == (score,)
    evaluation.write_text('{"dataset": "d", "scores": [{"rank1": 1}]}')
    with pytest.raises(InputError, match=r"evaluation\.json: not an evaluation"):
        read_scores(evaluation)


def test_scores_for_an_interface(run: SyntheticRun, make_metadata: Callable[..., ModelMetadata]) -> None:
    wanted = row_of(run, "rri", "restraint", 3)
    found = find_scores(run.folder / "checkpoints" / "rri_last.pth", wanted["correlation"], "id")  # type: ignore[arg-type]
    assert found is not None
    for feature in ("input", "output"):
        for normalized in (True, False):
            for flip in (True, False):
                score = found.for_interface(make_metadata(feature=feature, normalized=normalized, flip=flip).interface)
                assert score is not None
                assert (score["feature"], score["normalized"], score["flip"]) == (feature, normalized, flip)
