"""Runs of a program that replaces the training."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.io.checkpoint import FORMAT
from reid.ranking.bootstrap import paired_bootstrap_of_runs
from reid.sweep.runs import SweepRun, check_apart, gain_over_controls, run_all

TRAINING = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls.txt", "a") as file:
    file.write(json.dumps({"arguments": sys.argv[1:], "threads": os.environ["OMP_NUM_THREADS"]}) + "\\n")
(folder / "config.yaml").write_text("")
if "FAIL" in sys.argv:
    print("error: this one fails", file=sys.stderr)
    sys.exit(2)
if "SLOW" in sys.argv:
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted.txt").write_text("")
        sys.exit(130)
"""


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(TRAINING)
    return path


def run(folder: Path, *keys: str, seed: int = 0, control: bool = False) -> SweepRun:
    setting = tuple((key, "x") for key in keys)
    return SweepRun(folder.name, Path("a.yaml"), setting, seed, folder / f"seed{seed}", control)


def calls(one: SweepRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (one.folder / "calls.txt").read_text().splitlines()]


def test_each_run_gets_its_arguments_and_failures_do_not_stop_others(
    tmp_path: Path, train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # a user's own number
    runs = [run(tmp_path / "a", "KEY"), run(tmp_path / "b", "FAIL", seed=2), run(tmp_path / "c")]
    ended: dict[str, str | None] = {}
    run_all(runs, jobs=2, ended=lambda one, error: ended.update({one.name: error}), train=[str(train)])
    assert ended == {"a": None, "b": "error: this one fails", "c": None}
    arguments = calls(runs[0])[0]["arguments"]
    folder = str(runs[0].folder)
    assert arguments == ["--config-file", "a.yaml", "KEY", "x", "SEED", "0", "OUTPUT_DIR", folder]
    assert calls(runs[0])[0]["threads"] == "3"


def test_an_interrupted_run_is_resumed(tmp_path: Path, train: Path) -> None:
    one = run(tmp_path / "a")
    for _ in range(2):
        run_all([one], jobs=1, ended=lambda *_: None, train=[str(train)])
    first, second = calls(one)
    assert "--resume" not in first["arguments"] and "--resume" in second["arguments"]


def test_an_interrupt_reaches_the_trainings_and_starts_no_other(tmp_path: Path, train: Path) -> None:
    runs = [run(tmp_path / "a", "SLOW"), run(tmp_path / "b")]

    def interrupt() -> None:
        while not (runs[0].log.exists() and "started" in runs[0].log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs of a shell ignore it.
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run_all(runs, jobs=1, ended=lambda *_: None, train=[str(train)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (runs[0].folder / "interrupted.txt").exists()
    assert not runs[1].folder.exists()


def stage(run: str, stage: str, round: int, epochs: int = 0, **extra: Any) -> dict[str, Any]:
    return {"run": run, "stage": stage, "round": round, "epochs": epochs, "seconds": 10.0, "train_loss": 1.0 + round,
            "correlation": 0.1 + round, "scores": [{"flip": False}], **extra}  # fmt: skip


def write(one: SweepRun, stages: list[dict[str, Any]], stopped: str | None = "max_rounds") -> None:
    one.folder.mkdir(parents=True, exist_ok=True)
    score = {"rank1": 0.5, "mAP": 0.3, "feature": "input", "normalized": False, "flip": False}
    control = {**score, "rank1": 0.4} if any(row["run"] == "control" for row in stages) else None
    summary = {"dataset": "synthetic", "rows": stages, "final": score, "control_final": control, "stopped": stopped}
    (one.folder / "scores.json").write_text(json.dumps(summary))
    start = {"kind": "start", "commit": "abc", "machine": {"threads": 1, "processor": "p"}}
    (one.folder / "log.jsonl").write_text(json.dumps(start) + "\n{}\n")


STEP0 = stage("rri", "step0", 0, 8, images_per_second=100.0)
ROUND = [stage("rri", "decorrelate", 1), stage("rri", "restraint", 1, 3, images_per_second=300.0)]
CONTROL = [{**row, "run": "control"} for row in ROUND]
END = {**CONTROL[-1], "scores": [{"flip": False}, {"flip": True}]}  # after the flip test, which is made last


def test_finished(tmp_path: Path) -> None:
    alone, both = run(tmp_path / "a"), run(tmp_path / "b", control=True)
    assert not alone.finished()
    write(alone, [STEP0], stopped=None)
    assert not alone.finished()
    write(alone, [STEP0])
    assert alone.finished()
    for control, finished in (([], False), (CONTROL[:1], False), (CONTROL, False), ([CONTROL[0], END], True)):
        write(both, [STEP0, *ROUND, *control])
        assert both.finished() == finished
    (both.folder / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores\.json: cannot be read .*; move the folder away"):
        both.finished()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stopped": "max_rounds"}', "\x00"])
@pytest.mark.parametrize("file", ["scores.json", "log.jsonl"])
def test_damaged_files(tmp_path: Path, file: str, text: str) -> None:
    one = run(tmp_path / "a", control=True)
    write(one, [STEP0, *ROUND, *CONTROL])
    (one.folder / file).write_text(text)
    with pytest.raises(InputError, match=rf"{file}: cannot be read .*; move the folder away"):
        one.finished()
        one.row()


def test_runs_that_would_share_a_folder(tmp_path: Path) -> None:
    runs = [
        SweepRun("a LR=1", Path("a.yaml"), ((key, "1"),), 0, tmp_path / "LR=1", False)
        for key in ("STEP0.LR", "RESTRAINT.LR")
    ]
    with pytest.raises(InputError, match=r"a\.yaml STEP0\.LR=1 and a\.yaml RESTRAINT\.LR=1 would share the folder"):
        check_apart(runs)
    check_apart([run(tmp_path / "a"), run(tmp_path / "a", seed=1), run(tmp_path / "b")])


def test_the_row_of_a_run(tmp_path: Path) -> None:
    one = run(tmp_path / "a", "KEY", seed=1, control=True)
    write(one, [STEP0, *ROUND, *CONTROL])
    row = one.row()
    assert (row["name"], row["seed"], row["setting"], row["epochs"]) == ("a", 1, {"KEY": "x"}, 11)
    assert (row["rank1"], row["control_rank1"], row["control_mAP"]) == (0.5, 0.4, 0.3)
    assert (row["correlation"], row["correlation_step0"]) == (1.1, 0.1)
    assert (row["seconds"], row["images_per_second"]) == (20.0, 200.0)
    assert (row["commit"], row["threads"], row["processor"]) == ("abc", 1, "p")
    write(one, [STEP0])
    assert one.row()["control_mAP"] is None
    write(one, [{**STEP0, "epochs": 0, "seconds": 0.0}])  # a network that was trained before
    assert (one.row()["seconds"], one.row()["images_per_second"]) == (0.0, 0.0)
    log = one.folder / "log.jsonl"
    log.write_text(log.read_text().replace('"processor": "p"', '"processor": "p", "gpu": "g", "device": "cuda:0"'))
    assert one.row()["processor"] == "g"


def keep_queries(one: SweepRun, which: str, values: np.ndarray, persons: np.ndarray) -> None:
    """A last checkpoint, of which only the scores of single queries matter."""
    plain = {"feature": "output", "per_query": None, "identities": None}
    kept = {"feature": "input", "per_query": torch.from_numpy(values), "identities": torch.from_numpy(persons)}
    rows = [{"scores": []}, {"scores": [plain, kept]}]
    content = {"format": FORMAT, "model": {}, "config": "", "num_classes": 1, "rows": rows}
    (one.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(content, one.folder / "checkpoints" / f"{which}_last.pth")


def test_the_gain_of_a_setting_is_over_its_seeds_and_persons(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a", seed=seed, control=True) for seed in (0, 1)]
    values = np.random.default_rng(0).random((2, 2, 40, 3))
    persons = np.arange(40) // 4
    for one, (ours, control) in zip(runs, values, strict=True):
        keep_queries(one, "rri", ours, persons)
        keep_queries(one, "control", control, persons)
    gain = gain_over_controls(runs)
    assert gain is not None and list(gain) == ["rank1", "mAP", "mINP"]
    assert np.array_equal(list(gain.values()), paired_bootstrap_of_runs(values[:, 0], values[:, 1], persons))
    assert gain["mAP"][0] == pytest.approx((values[:, 0, :, 1] - values[:, 1, :, 1]).mean())


def test_no_gain_without_the_same_queries_or_without_checkpoints(tmp_path: Path) -> None:
    values, persons = np.full((4, 3), 0.5), np.arange(4)
    for name, others, missing in (("a", persons + 1, None), ("b", persons, "control_last.pth")):
        runs = [run(tmp_path / name, seed=seed, control=True) for seed in (0, 1)]
        for one, identities in zip(runs, (persons, others), strict=True):
            for which in ("rri", "control"):
                keep_queries(one, which, values, identities)
        assert gain_over_controls([runs[0], runs[0]]) == {key: [0.0, 0.0, 0.0] for key in ("rank1", "mAP", "mINP")}
        assert gain_over_controls(runs[:1]) is None
        if missing:
            (runs[1].folder / "checkpoints" / missing).unlink()
        assert gain_over_controls(runs) is None
    assert gain_over_controls([run(tmp_path / "a"), run(tmp_path / "a")]) is None  # trained without control


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    one = run(tmp_path / "a", control=True)
    keep_queries(one, "control", np.full((4, 3), 0.5), np.arange(4))
    torch.save(
        {"format": FORMAT, "model": {}, "config": "", "num_classes": 1, "rows": []},
        one.folder / "checkpoints" / "rri_last.pth",
    )
    with pytest.raises(InputError, match=r"rri_last\.pth: cannot be read .*; move the folder away"):
        gain_over_controls([one, one])
