from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reid.config.keys import MOVABLE
from reid.config.loading import complete_config
from reid.errors import InputError
from reid.io.atomic import write_json
from reid.training.provenance import provenance
from reid.training.run_folder import RunFolder
from reid.training.seeding import random_states, restore_random_states, seed_everything, seed_from


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open("SEED: 0\n", resume=False)
    assert (tmp_path / "run" / "config.yaml").read_text() == "SEED: 0\n"
    with pytest.raises(InputError, match="add --resume"):
        RunFolder(tmp_path / "run").open("SEED: 0\n", resume=False)
    folder.close()
    RunFolder(tmp_path / "run").open("SEED: 0\n", resume=True)


def test_resume_needs_the_same_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to resume"):
        RunFolder(tmp_path / "none").open("", resume=True)
    RunFolder(tmp_path).open("SEED: 0\nX: 1\n", resume=False)
    with pytest.raises(InputError, match="SEED was 0, is 1"):
        RunFolder(tmp_path).open("SEED: 1\nX: 1\n", resume=True)
    with pytest.raises(InputError, match="X was None, is 2"):
        RunFolder(tmp_path).open("SEED: 0\nX: 1\nS: {X: 2}\n", resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    (opened, opening), (ended, ending) = os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        try:
            os.close(ending)
            folder = RunFolder(tmp_path)
            folder.open("SEED: 0", resume=False)
            os.write(opening, b"open")
            os.read(ended, 1)
        finally:
            os._exit(0)
    os.close(opening)
    assert os.read(opened, 4) == b"open"
    with pytest.raises(InputError, match=rf"process {process} .* trains into it"):
        RunFolder(tmp_path).open("SEED: 0", resume=True)
    os.close(ending)
    os.waitpid(process, 0)
    RunFolder(tmp_path).open("SEED: 0", resume=True)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"SEEED: 1\n"])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml: not a valid configuration"):
        RunFolder(tmp_path).check("SEED: 0\n", resume=True, complete=complete_config)


def test_a_run_may_move_to_another_machine(tmp_path: Path) -> None:
    RunFolder(tmp_path).open("MODEL: {DEVICE: cpu, K: 1}\nDATASETS: {ROOT: a}\n", resume=False)
    RunFolder(tmp_path, movable=MOVABLE).open("MODEL: {DEVICE: cuda, K: 1}\nDATASETS: {ROOT: b}\n", resume=True)


def test_a_changed_configuration_is_refused_or_forced(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    assert first.open("SEED: 0\nX: 1\n", resume=False) == ()
    first.close()
    with pytest.raises(InputError, match=r"SEED was 0, is 1; X was 1, is 2; restore it, or add --force"):
        RunFolder(tmp_path).check("SEED: 1\nX: 2\n", resume=True)
    forced = RunFolder(tmp_path)
    assert forced.open("SEED: 1\nX: 2\n", resume=True, force=True) == ("SEED was 0, is 1", "X was 1, is 2")
    forced.close()
    RunFolder(tmp_path).open("SEED: 1\nX: 2\n", resume=True)  # what was forced is the configuration now


@pytest.mark.parametrize("key", ["CHECKPOINT: {MINUTES: %d}", "SOLVER: {NONFINITE: %d}", "DATASETS: {CACHE: %d}"])
def test_a_harmless_change_needs_no_force(tmp_path: Path, key: str) -> None:
    first = RunFolder(tmp_path)
    first.open(key % 0, resume=False)
    first.close()
    assert RunFolder(tmp_path, movable=MOVABLE).open(key % 1, resume=True) == ()


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    first.open("SEED: 0\n", resume=False)
    for begin in (RunFolder(tmp_path).check, RunFolder(tmp_path).open):
        with pytest.raises(InputError, match=rf"process {os.getpid()} on .* trains into it"):
            begin("SEED: 0\n", resume=True)
    first.close()
    RunFolder(tmp_path).open("SEED: 0\n", resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    process = os.fork()
    if not process:
        try:
            folder = RunFolder(tmp_path)
            folder.open("SEED: 0", resume=False)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    (tmp_path / ".config.yaml.writing").write_text("SE")
    (tmp_path / "checkpoints" / ".rri_last.pth.writing").write_text("PK")
    RunFolder(tmp_path).open("SEED: 0\n", resume=True)
    assert not list(tmp_path.rglob("*.writing"))


def test_random_states_are_taken_over_from_plain_values() -> None:
    def numbers() -> tuple[float, ...]:
        return (torch.rand(1).item(), np.random.rand(), np.random.randn(), random.random(), random.gauss())

    seed_everything(3)
    numbers()
    buffer = io.BytesIO()
    torch.save(random_states(), buffer)
    first, second = numbers(), numbers()
    seed_everything(9)
    restore_random_states(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert (numbers(), numbers()) == (first, second)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "run").check("", resume=False)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["log.jsonl", "checkpoints/rri_last.pth"])
def test_a_run_without_its_configuration_is_not_overwritten(tmp_path: Path, left: str, resume: bool) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("")
    with pytest.raises(InputError, match=r"whose config\.yaml is missing"):
        RunFolder(tmp_path).open("SEED: 0\n", resume=resume)


@pytest.mark.parametrize("name", [".lock", "log.jsonl"])
def test_what_a_link_points_to_is_not_written(tmp_path: Path, name: str) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    mine.write_text("mine")
    run.mkdir()
    (run / "config.yaml").write_text("SEED: 0\n")
    (run / name).symlink_to(mine)
    folder = RunFolder(run)
    with pytest.raises((InputError, OSError), match=r"not a regular file|symbolic links"):
        folder.open("SEED: 0\n", resume=True)
        folder.cut_log(0)
    assert mine.read_text() == "mine"


def test_nothing_is_made_before_the_folder_is_opened(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").check("SEED: 0\n", resume=False)
    assert not (tmp_path / "run").exists()


def test_the_log_is_lines_of_json_and_can_be_cut_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in range(5):
        folder.log({"kind": "epoch", "epoch": number})
    position = folder.log_position()
    assert position["log_lines"] == 5
    assert folder.cut_log(5, position["log_sha256"]) == ()
    folder.cut_log(2)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": {1, 2}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_seeds_follow_from_their_names_alone() -> None:
    seeds = {seed_from(seed, stage, r, e) for seed in (0, 1) for stage in "ab" for r in range(3) for e in range(9)}
    assert len(seeds) == 2 * 2 * 3 * 9
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_from(0, "step0", 0, 1) == seed_from(0, "step0", 0, 1)


def test_provenance_names_command_and_versions() -> None:
    found = provenance()
    assert {"command", "commit", "versions", "machine"} <= set(found)
    assert {"python", "torch", "torchvision", "numpy", "reid"} <= set(found["versions"])


def test_tensorboard_holds_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = RunFolder(tmp_path)
    folder.open("SEED: 0\n", resume=False, tensorboard=True)
    folder.log({"kind": "start"})
    folder.log({"kind": "epoch", "run": "rri", "stage": "step0", "epoch": 1, "loss": 2.5})
    folder.log({"kind": "epoch", "run": "rri", "stage": "step0", "epoch": 2, "loss": 1.5})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("rri/loss")] == [(1, 2.5), (2, 1.5)]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".a.json.writing").symlink_to(tmp_path / "mine")
    write_json(tmp_path / "a.json", {"b": 1})
    assert (tmp_path / "mine").read_text() == "mine"
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1} and not (tmp_path / "a.json").is_symlink()


def test_a_configuration_to_go_on_with_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"config\.yaml: not a UTF-8 text file"):
        RunFolder(tmp_path).check("SEED: 1\n", resume=True)
