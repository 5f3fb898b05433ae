"""Two processes are one: what goes between them, and what becomes of the others when one ends."""

from __future__ import annotations

import sys
from pathlib import Path

import gloo_jobs
import numpy as np
import pytest
import torch
from gloo import Ended, together

from reid.distributed import (
    all_reduce_max,
    broadcast,
    gather,
    get_world_size,
    process_group,
    process_info,
    process_slice,
    restart_command,
    run_on_main,
)
from reid.errors import InputError
from reid.evaluation.features import extract

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def errors(ended: list[Ended]) -> list[str]:
    return [line for process in ended for line in process.told.splitlines() if line.startswith("error: ")]


def test_one_process_is_silent() -> None:
    with process_group() as here:
        assert (here.rank, here.world_size, here.local_rank, get_world_size()) == (0, 1, 0, 1)
        assert not torch.distributed.is_initialized()
        kept = [torch.ones(2), "x"]
        assert broadcast(kept) is kept and gather(kept) == [kept] and run_on_main(lambda: 3) == all_reduce_max(3) == 3


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "0"}, "RANK=0, but WORLD_SIZE and MASTER_ADDR and MASTER_PORT not set; start with torchrun"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK and"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT not set"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one, WORLD_SIZE=2: these must be whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "there is no such process"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "there is no such process",
        ),
    ],
)
def test_variables_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as raised:
        process_info()
    assert told in str(raised.value)


def test_who_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("1", "2", "1", "2", "127.0.0.1", "9"), strict=True):
        monkeypatch.setenv(name, value)
    told = r"process 1 of 2 could not reach the other processes at 127\.0\.0\.1:9 within 1 s"
    with pytest.raises(InputError, match=told), process_group(join_timeout=1):
        raise AssertionError


def test_processes_end_while_calls_are_still_running(tmp_path: Path) -> None:
    assert [process.code for process in together(gloo_jobs.left_running, tmp_path, limit=60)] == [0, 0]


def test_the_command_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    script, module, installed = ["tools/a.py"], ["-m", "reid", "a"], ["svdnet", "a"]
    assert restart_command(script, ["--resume", "a b"]) == f"{sys.executable} tools/a.py --resume 'a b'"
    assert restart_command(module, ["b"]) == f"{sys.executable} -m reid a b"
    assert restart_command(installed, ["b"]) == "svdnet a b"
    for name, value in zip(VARIABLES, ("1", "4", "1", "4", "a", "9"), strict=True):
        monkeypatch.setenv(name, value)
    launcher = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 4"
    assert restart_command(script, ["c"]) == f"{launcher} tools/a.py c"
    for program in (module, installed):
        assert restart_command(program, ["c"]) == f"{launcher} -m reid a c"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert restart_command(script, ["c"]) == "torchrun, on every host as before, with tools/a.py c"


@pytest.mark.parametrize(("count", "among"), [(0, 2), (1, 3), (7, 3), (9, 3), (100, 7)])
def test_parts_are_everything_once(count: int, among: int) -> None:
    parts = [list(range(count))[process_slice(count, rank, among)] for rank in range(among)]
    assert [thing for part in parts for thing in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_goes_between_processes(tmp_path: Path) -> None:
    ended = together(gloo_jobs.values, tmp_path)
    assert [process.code for process in ended] == [0, 0], [process.told for process in ended]
    one, two = (process.value for process in ended)
    for seen in (one, two):
        assert seen["broadcast"]["a"] == [0, (1.5, None)] and torch.equal(seen["broadcast"]["b"], torch.arange(3))
        assert seen["on_first"] == "0" and seen["largest"] == 7
        assert torch.equal(seen["buffers"][0], torch.zeros(3, 2)) and int(seen["buffers"][1]) == 0
        # SyncBatchNorm is CUDA's alone in PyTorch: here only that it comes, and that a CPU is told.
        assert seen["converted"]
        running, frozen, too_small, alone = seen["told"]
        assert "SyncBatchNorm shares the statistics of 2 processes on GPUs only" in running and not frozen
        assert "a batch of 1 images in groups of 1 cannot be split among 2 processes" in too_small
        assert "cannot compute statistics from 1 image per process" in alone
    assert (one["gather"], two["gather"]) == ([[0], [1, 1, 1]], [])
    whole = extract(gloo_jobs.network(), gloo_jobs.gallery(7, 2))
    assert not two["features"]
    for name, features in whole.items():
        np.testing.assert_array_equal(one["features"][name].numpy(), features.values)


def test_a_killed_process_ends_the_other(tmp_path: Path) -> None:
    survivor, victim = together(gloo_jobs.killed, tmp_path, 3)  # which fails where one hangs
    assert (survivor.code, victim.code) == (2, -9)
    assert errors([survivor]) and "process 0 of 2 lost contact with another process" in errors([survivor])[0]
    assert "Traceback" not in survivor.told


def test_a_loop_of_the_users_own_keeps_the_processes_alike(tmp_path: Path) -> None:
    first, second = (process.value for process in together(gloo_jobs.own_loop, tmp_path))
    assert list(first) == ["decorrelated", "Restraint", "Relaxation"]
    assert all(torch.equal(first[stage], second[stage]) for stage in first)
    assert not torch.equal(first["Restraint"], first["Relaxation"])


@pytest.mark.parametrize("whose", [-1, 0, 1])
def test_one_tells_why_and_all_end_alike(tmp_path: Path, whose: int) -> None:
    ended = together(gloo_jobs.refused, tmp_path, whose)
    assert [process.code for process in ended] == [2, 2]
    assert errors(ended).count("error: this is wrong") == 1
    assert "Traceback" not in ended[0].told + ended[1].told
