"""Run folders to resume: checkpoints with other values in any place, and logs with any bytes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.harness import attempt, fuzz, mutated
from hypothesis import strategies as st
from small_experiment import Killed, KillingLoader, experiment, log

from reid.io.checkpoint import load_checkpoint, save_checkpoint

OTHERS = [None, "x", -1, 3, 2**62, float("nan"), 0.5, [], {}, [[]], True, torch.zeros(3), torch.zeros(()), "MISSING"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in the middle of an epoch of Restraint."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(Killed):
        experiment(folder, loader=KillingLoader(15), minutes=1e-9, control=False).run()
    (folder / "checkpoints" / "rri_previous.pth").unlink()
    return folder


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values are: all keys of mappings, the first entries of lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def replaced(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    tree = content = copy.deepcopy(content)
    for key in place[:-1]:
        if isinstance(tree[key], tuple):
            tree[key] = list(tree[key])
        tree = tree[key]
    if isinstance(value, str) and value == "MISSING":
        del tree[place[-1]]
    else:
        tree[place[-1]] = value
    return content


@fuzz(st.integers(0, 10**6), st.sampled_from(OTHERS), short=20)
def test_checkpoints_with_other_values(tmp_path: Path, interrupted: Path, number: int, value: Any) -> None:
    content = load_checkpoint(interrupted / "checkpoints" / "rri_last.pth")
    assert content["middle"] and content["optimizer"]["state"]
    chosen = [place for place in places(content) if place[0] not in ("model", "format")]
    changed = replaced(content, chosen[number % len(chosen)], value)
    folder = copied(interrupted, tmp_path / "run")
    save_checkpoint(folder / "checkpoints" / "rri_last.pth", changed)
    before = len(log(folder))
    attempt("resume: checkpoints", experiment(folder, resume=True, control=False).run)
    assert len(log(folder)) >= before - 1


@fuzz(st.data(), short=8)
def test_logs_with_other_bytes(tmp_path: Path, interrupted: Path, data: Any) -> None:
    folder = copied(interrupted, tmp_path / "run")
    good = (folder / "log.jsonl").read_bytes()
    changed = data.draw(mutated(good))
    (folder / "log.jsonl").write_bytes(changed)
    ended = attempt("resume: logs", experiment(folder, resume=True, control=False).run)
    if ended is None:
        assert (folder / "log.jsonl").read_bytes() == changed
    else:
        assert (folder / "log.jsonl").read_bytes().startswith(good[: good[:-1].rindex(b"\n")])


def copied(folder: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target
