"""`benchmarks/study.py` from its trainings to rows and differences."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from benchmark import run_benchmark

SMALL = (
    *("DATASETS.NAME", "synthetic", "DATASETS.SYNTHETIC.SIZE", "tiny", "DATASETS.IDENTITIES", "1.0"),
    *("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "MODEL.EIGENLAYER.DIM", "16"),
    *("SOLVER.BATCH_SIZE", "16", "SOLVER.PRECISION", "float32", "ENGINE", "torch", "RRI.MAX_ROUNDS", "1"),
    *("STEP0.EPOCHS", "1", "RESTRAINT.EPOCHS", "1", "RELAXATION.EPOCHS", "1"),
)
STAGES = ["step0", "decorrelate", "restraint", "relaxation", "decorrelate", "restraint"]


def test_rows_and_differences_of_two_arms(tmp_path: Path) -> None:
    def study(*more: str) -> tuple[int, str, str]:
        cache = ("DATASETS.CACHE", os.environ["REID_CACHE"])
        rows = ("--rows", str(tmp_path / "rows.jsonl"))
        options = ("--recipes", "identity", "--arms", "control", "US", "--seeds", "0", "--jobs", "2")
        return run_benchmark("study", str(tmp_path / "runs"), *options, *rows, *SMALL, *cache, *more)

    code, _, err = study()
    assert code == 0, err
    control, us, *summaries = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (control["arm"], us["arm"], us["changed"]) == ("control", "US", [])
    # Both began with the network of one Step 0, and only US jumped.
    first, second = (run["stages"] for run in (control, us))
    assert [stage["stage"] for stage in second] == STAGES
    assert {key: first[0][key] for key in ("correlation", "input")} == {
        key: second[0][key] for key in ("correlation", "input")
    }
    assert second[1]["train_loss_before"] < second[1]["train_loss_after"]
    assert first[1].get("train_loss_before") == first[1].get("train_loss_after")
    assert us["correlation"] == pytest.approx(1, abs=1e-5) and control["geometry"].keys() == us["geometry"].keys()
    difference = next(row for row in summaries if (row["arm"], row["other"]) == ("US", "control"))
    if us["commit"].endswith("-dirty"):
        assert "not committed" in difference["refused"][0]
    else:
        assert difference["difference"]["mAP"][0] == pytest.approx(us["mAP"] - control["mAP"])
    # What is finished is not trained again, and not taken for something else.
    code, _, err = study("STEP0.LR", "[0.1]")
    assert code == 2 and "step0_identity_0: trained with other settings; move it away" in err
