"""The short form of the power failures, and that it sees what it is to see."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from fault import power_loss
from fault.disk import Disk, State, restore

import reid.io.atomic
import reid.io.checkpoint
import reid.search.gallery.shard_files
import reid.search.gallery.writer
import reid.training.run_folder


@pytest.fixture(autouse=True)
def two_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(power_loss, "STEPS", 2)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", power_loss.CASES)
def test_nothing_is_lost_or_mixed(tmp_path: Path, name: str) -> None:
    prefixes, states, wrong = power_loss.try_case(power_loss.CASES[name], tmp_path, crashes=5, seed=0)
    assert wrong == [] and prefixes > 5 and states > 5


@pytest.mark.parametrize(
    ("name", "holder", "function"),
    [
        ("files", reid.io.atomic, "sync_folder"),
        ("checkpoints", reid.io.checkpoint, "make_folder"),
        ("run folder", reid.training.run_folder, "make_folder"),
        ("run folder", reid.training.run_folder, "sync_folder"),
        ("archive", reid.io.atomic, "sync_tree"),
        ("drawing", reid.io.atomic, "sync_tree"),
        ("decoding", reid.io.atomic, "sync_folder"),
        ("index", reid.search.gallery.writer, "make_folder"),
        ("index", reid.search.gallery.shard_files, "sync_folder"),
    ],
)
def test_a_missing_flush_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, holder: object, function: str
) -> None:
    real_makedirs = os.makedirs
    without = {
        "sync_folder": lambda path: None,
        "sync_tree": lambda path: None,
        "make_folder": lambda path: real_makedirs(path, exist_ok=True),
    }
    monkeypatch.setattr(holder, function, without[function])
    assert power_loss.try_case(power_loss.CASES[name], tmp_path, crashes=5, seed=0)[2]


def states_of(disk: Disk, count: int) -> list[dict[str, bytes]]:
    """What is found in the extremes after the first operations."""
    import random

    state, found = State(), []
    for operation in disk.operations[:count]:
        state.apply(operation)
    for number, kept in enumerate(power_loss.SURVIVORS):
        folder = disk.root.parent / f"state_{count}_{number}"
        restore(folder, disk.folders, *state.crash(random.Random(0), *kept))
        found.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    return found


def test_what_is_recorded_is_what_is_done(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "old").write_bytes(b"old")
    disk = Disk(root)
    with disk.recording():
        with open(root / "in" / "a", "wb") as file:
            file.write(b"12345678")
            file.seek(2)
            file.write(b"xy")
            file.truncate(6)
        with open(root / "in" / "a", "a", encoding="utf-8") as text:
            text.write("ü\n")
        with open(root / "in" / "old", "r+b") as both:
            both.seek(1)
            both.write(b"LD!")
        os.link(root / "in" / "a", root / "second")
        (root / "in").rename(root / "out")
        (root / "out" / "b").touch()
        (root / "out" / "b").write_text("b")
        (root / "out" / "b").unlink()
    expected = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert expected == {"out/a": b"12xy56\xc3\xbc\n", "out/old": b"oLD!", "second": b"12xy56\xc3\xbc\n"}
    nothing, entries, everything, data = states_of(disk, len(disk.operations))
    assert everything == expected
    assert nothing == {"in/old": b"old"} and data == {"in/old": b"oLD!"}
    assert entries == {"out/a": b"", "out/old": b"old", "second": b""}
    assert isinstance(open, type(io.open))  # the real ones again
