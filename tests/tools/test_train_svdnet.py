"""The main job from end to end on a drawn dataset, and what it says to bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from called import Tool
from forked import start_command

from reid.io.checkpoint import load_checkpoint
from reid.model.network import ReidNetwork

ROOT = Path(__file__).parents[2]


def frames_to_embed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of frames of ours from `main` to `ReidNetwork.embed` in training, both counted, as they are met."""
    met, embed = set(), ReidNetwork.embed

    def counting(self: ReidNetwork, images: torch.Tensor) -> Any:
        frame, count = sys._getframe(1), 1
        while self.training and frame:
            name = Path(frame.f_code.co_filename)
            count += any(name.is_relative_to(ROOT / folder) for folder in ("reid", "tools"))
            if frame.f_code.co_name == "main":
                met.add(count)
                break
            frame = frame.f_back
        return embed(self, images)

    monkeypatch.setattr(ReidNetwork, "embed", counting)
    return met


def test_from_synthetic_data_to_report_and_back(
    train: Tool, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn_charts: None
) -> None:
    frames = frames_to_embed(monkeypatch)
    monkeypatch.setattr("reid.commands.train.LOG_SECONDS", 0.0)
    ended = train().ok()
    assert re.search(r"^rri     step0 {18}1 +\d+\.\d +\d+\.\d\d   \d:\d\d left$", ended.out, re.M)  # after an epoch
    assert all(len(line) <= 80 for line in ended.out.splitlines() if str(tmp_path) not in line)
    assert max(frames) == 8
    run = tmp_path / "run"
    for line in (
        "subset",
        "train ",
        "query ",
        "decorrelate",
        "control",
        "difference  rank-1 ",
        "1 rounds; RRI stopped",
    ):
        assert line in ended.out
    summary = json.loads((run / "scores.json").read_text())
    rows = {(row["run"], row["stage"], row["round"]): row for row in summary["rows"]}
    assert list(rows) == [("rri", "step0", 0)] + [
        (run, stage, 1) for run in ("rri", "control") for stage in ("decorrelate", "restraint", "relaxation")
    ]
    decorrelate, restraint = rows["rri", "decorrelate", 1], rows["rri", "restraint", 1]
    assert decorrelate["correlation"] == pytest.approx(1, abs=1e-5)
    assert restraint["correlation"] == decorrelate["correlation"]
    assert rows["rri", "step0", 0]["correlation"] < 0.5
    # Retrieval stands where it was: the same input features, and the same distances between the outputs.
    before, after = (row["scores"] for row in (rows["rri", "step0", 0], decorrelate))
    assert [s for s in before if s["feature"] == "input"] == [s for s in after if s["feature"] == "input"]
    for a, b in zip(before, after, strict=True):
        assert a["mAP"] == pytest.approx(b["mAP"], abs=0.01)
    assert (run / "report.html").stat().st_size > 1000
    examples, final = json.loads((run / "examples.json").read_text()), summary["final"]
    gained = round(examples["queries"] * (final["rank1"] - summary["control_final"]["rank1"]))
    assert examples["names"] == ["RRI", "control"] and examples["repaired"] - examples["broken"] == gained
    (run / "examples.json").unlink()
    for path in run.glob("checkpoints/control_*"):  # as if killed between the end of RRI and the control
        path.unlink()
    train("--resume").ok()
    assert json.loads((run / "examples.json").read_text()) == examples
    summary = json.loads((run / "scores.json").read_text())  # the control took other seconds

    last = run / "checkpoints" / "rri_last.pth"
    tool("evaluate", "--weights", last, "--output", tmp_path / "again", "--save-features", "TEST.FLIP", "True").ok()
    evaluation = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    final_row = rows["rri", "relaxation", 1]
    assert evaluation["scores"] == final_row["scores"]
    assert summary["final"] in evaluation["scores"]

    tool("evaluate", "--features", tmp_path / "again" / "features_input.npz").ok()
    raw = json.loads((tmp_path / "again" / "features_input" / "evaluation.json").read_text())["scores"][0]
    assert raw == summary["final"]
    tool("report", run).ok()
    assert json.loads((run / "scores.json").read_text()) == summary


def test_the_duke_reader_from_end_to_end(train: Tool, tool: Tool, tmp_path: Path) -> None:
    tool("dataset", "--size", "tiny", "--layout", "duke", "--seed", "1", "--output", tmp_path / "data").ok()
    options = ("DATASETS.NAME", "dukemtmcreid", "DATASETS.ROOT", tmp_path / "data", "RRI.MAX_ROUNDS", "0")
    ended = train(*options, "RRI.CONTROL", "False").fails("16,522")
    assert "DATASETS.STRICT False" in ended.err
    assert not (tmp_path / "run").exists()
    train(*options, "RRI.CONTROL", "False", "DATASETS.STRICT", "False").ok()
    summary = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert summary["dataset"] == "dukemtmcreid"
    assert [row["stage"] for row in summary["rows"]] == ["step0"]


SMALL_MAPS = ("MODEL.BACKBONE", "resnet18", "INPUT.SIZE", "[32, 16]")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("SOLVER.BATCHSIZE", "3", "STEP0.EPOCHS", "no"), ("SOLVER.BATCH_SIZE", "STEP0.EPOCHS must be an integer")),
        (("DATASETS.NAME", "market1501", "DATASETS.ROOT", "nowhere"), ("nowhere",)),
        (("MODEL.WEIGHTS", "missing.pth"), ("missing.pth",)),
        (("MODEL.EIGENLAYER.DIM", "600"), ("K = 600", "128")),
        (("MODEL.DEVICE", "cuda:7"), ("cuda:7",)),
        (("MODEL.DEVICE", "toaster"), ("toaster",)),
        (("RESTRAINT.FREEZE", "['backbone.layer9']"), ("backbone.layer9",)),
        (("MODEL.POOLING.NAME", "gem", "MODEL.POOLING.P", "-2"), ("MODEL.POOLING.P -2.0 must be above 0",)),
        ((*SMALL_MAPS, "MODEL.POOLING.NAME", "rmac"), ("regions, more than the 1 x 1 positions of the map",)),
        (
            (*SMALL_MAPS, "MODEL.POOLING.NAME", "netvlad", "MODEL.POOLING.CLUSTERS", "4000"),
            ("k-means needs at least 4000 local descriptors",),
        ),
        (
            (*SMALL_MAPS, "MODEL.NORM.NAME", "group", "MODEL.NORM.GROUPS", "7"),
            ("7 groups do not divide the 64 channels of bn1",),
        ),
        (("SAMPLER.NAME", "identity", "SOLVER.BATCH_SIZE", "400"), ("a batch of 100 identities with 4 images each",)),
        (
            ("SAMPLER.NAME", "mined", "LOSS.CONTRASTIVE", "1", "SOLVER.BATCH_SIZE", "400"),
            ("in tuples of 4", "there are"),
        ),
        (("DATASETS.NAME", "folder", "DATASETS.PATTERN", "cam{camera}_*"), ("has no {identity}",)),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(train: Tool, overrides: tuple[str, ...], parts: tuple[str, ...]) -> None:
    ended = train(*overrides)
    assert ended.code == 2
    lines = [line for line in ended.err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in lines[0]


def test_a_pooling_with_clusters_from_k_means(train: Tool, tool: Tool, tmp_path: Path) -> None:
    options = ("MODEL.POOLING.NAME", "ghost_vlad", "MODEL.POOLING.CLUSTERS", "4", "RRI.MAX_ROUNDS", "0")
    ended = train(*options, "STEP0.EPOCHS", "1").ok()
    assert "Eigenlayer 512 x 32" in ended.out
    weights = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    tool("evaluate", "--weights", weights, "--output", tmp_path / "again", "TEST.FLIP", "True").ok()
    evaluation = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert evaluation["scores"] == json.loads((tmp_path / "run" / "scores.json").read_text())["rows"][0]["scores"]


MARKET = ("DATASETS.NAME", "market1501", "DATASETS.STRICT", "False", "DATASETS.ROOT")


def test_a_truncated_image_is_named(train: Tool, market: Path) -> None:
    victim = sorted((market / "query").glob("*.jpg"))[3]
    victim.write_bytes(victim.read_bytes()[:700])
    train(*MARKET, market.parent).fails(victim.name)


def test_one_camera_leaves_nothing_to_find(train: Tool, market: Path, tmp_path: Path) -> None:
    for image in [*(market / "query").iterdir(), *(market / "bounding_box_test").iterdir()]:
        if "_c1s" not in image.name:
            image.unlink()
    train(*MARKET, market.parent).fails("there is nothing to evaluate")
    assert not (tmp_path / "run").exists()


def test_no_query_with_a_true_match(train: Tool, market: Path, tmp_path: Path) -> None:
    for image in (market / "bounding_box_test").iterdir():
        if not image.name.startswith(("-1", "0000")):
            image.rename(image.with_name("9" + image.name[1:]))
    train(*MARKET, market.parent).fails("no query has a true match")
    assert not (tmp_path / "run").exists()


def test_the_final_restraint_the_flip_test_and_an_ablation(train: Tool, tmp_path: Path) -> None:
    options = ("RRI.FINAL_RESTRAINT", "True", "TEST.FLIP", "True", "MODEL.EIGENLAYER.RELU", "True")
    train(*options, "RRI.CONTROL", "False", "RRI.VARIANT", "QD").ok()
    summary = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert [(row["stage"], row["round"]) for row in summary["rows"]][-2:] == [("decorrelate", 2), ("restraint", 2)]
    assert summary["final"]["flip"] is True
    assert summary["rounds"] == 1


def test_a_diverged_training_is_exit_code_1(train: Tool) -> None:
    ended = train("STEP0.LR", "1e30", "SOLVER.OPTIMIZER", "sgd", "STEP0.WARMUP_EPOCHS", "0")
    assert ended.code == 1
    assert "error: rri step0 epoch" in ended.err
    assert "Traceback" not in ended.err


def test_a_sheet_that_cannot_be_written_is_told_before_drawing(tool: Tool, tmp_path: Path) -> None:
    ended = tool("dataset", "--size", "tiny", "--output", tmp_path / "data", "--sheet", tmp_path / "no" / "x.png")
    ended.fails("x.png")
    assert not (tmp_path / "data").exists()


def test_a_python_config_is_refused(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("raise SystemExit(99)")
    tool("train", "--config-file", tmp_path / "c.py").fails("never executed")


def test_a_name_that_does_not_parse(train: Tool, market: Path) -> None:
    first = min((market / "bounding_box_train").iterdir())
    first.rename(first.with_name("holiday.jpg"))
    train(*MARKET, market.parent).fails("holiday.jpg")


def test_a_checkpoint_of_another_network(train: Tool, tool: Tool, tmp_path: Path) -> None:
    train("RRI.MAX_ROUNDS", "0", "RRI.CONTROL", "False", "STEP0.EPOCHS", "1").ok()
    path = tmp_path / "run" / "checkpoints" / "rri_last.pth"
    content = load_checkpoint(path)
    content["config"] = content["config"].replace("DIM: 32", "DIM: 16")
    torch.save(content, path)
    tool("evaluate", "--weights", path).fails("eigenlayer.weight (32, 128) for (16, 128)")


def test_a_finished_run_says_so_and_is_not_resumed_with_other_images(train: Tool, market: Path) -> None:
    options = (*MARKET, market.parent, "RRI.MAX_ROUNDS", "0", "RRI.CONTROL", "False", "STEP0.EPOCHS", "1")
    first = train(*options).ok()
    assert "nothing is left to train" not in first.out
    again = train(*options, "--resume").ok()
    assert "is finished: nothing is left to train" in again.out
    (row,) = (line for line in first.out.splitlines() if line.startswith("rri "))
    assert again.out.splitlines().count(row) == 1  # the finished stage
    removed = min((market / "bounding_box_train").iterdir())
    removed.unlink()
    train(*options, "--resume").fails(f"images of 'train' are missing, the first: {removed.name}")


def test_a_run_is_not_overwritten(train: Tool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("SEED: 7\n")
    train().fails("--resume")
    assert (tmp_path / "run" / "config.yaml").read_text() == "SEED: 7\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_interrupted_it_saves_and_says_how_to_go_on(quick: tuple[str, ...], tmp_path: Path) -> None:
    config = str(ROOT / "configs" / "demo_synthetic.yaml")
    options = [*quick, "OUTPUT_DIR", str(tmp_path / "run"), "STEP0.EPOCHS", "400"]
    process = start_command("train", "--config-file", config, *options)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"epoch"') >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(300) == 130, err
    process.close()
    assert "--resume" in err
    assert "Traceback" not in err
    position = load_checkpoint(tmp_path / "run" / "checkpoints" / "rri_last.pth")["position"]
    assert position["epoch"] >= 1
    program, *words = shlex.split(err.split("To resume: ")[1])
    assert program == "svdnet"  # which is on the path only where the environment is active
    again = subprocess.Popen(
        [sys.executable, "-m", "reid", *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while len(log.read_text().splitlines()) < position["epoch"] + 3 and time.monotonic() < deadline:
        assert again.poll() is None, again.communicate()
        time.sleep(0.05)
    again.kill()
    again.communicate()
    lines = map(json.loads, log.read_text().splitlines())
    epochs = [line["epoch"] for line in lines if line["kind"] == "epoch"]  # an edited file is a line of kind "changed"
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) > position["epoch"]
