"""Run folders that were changed since the run was interrupted: refused in one line, or resumed correctly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_experiment import Killed, assert_same_run, evaluate, experiment, killing, log, timeless

from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its control."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    experiment(folder).run()
    return folder


def interrupted(folder: Path, after: int = 5) -> Path:
    with pytest.raises(Killed):
        experiment(folder, score=killing(after, evaluate)).run()
    return folder


def change_checkpoint(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = load_checkpoint(path)
    change(content)
    save_checkpoint(path, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("position"), "position is missing"),
        (lambda c: c["position"].update(epoch="x"), "position.epoch cannot be 'x'"),
        (lambda c: c["position"].update(epoch=7), "losses of 7 epochs"),
        (lambda c: c["position"].update(run="control"), "belongs to the run 'control'"),
        (lambda c: c["position"].update(model=None), "unknown value 'model'"),
        (lambda c: c["rows"].pop(0), "not in order"),
        (lambda c: c["rows"][0]["scores"][0].update(rank1=2.0), r"rows\[0\].scores\[0\].rank1 cannot be 2.0"),
        (lambda c: c["rows"][0]["extra"].update(run="x"), r"rows\[0\].extra cannot be"),
        (lambda c: c.update(optimizer=[]), r"optimizer cannot be \[\]"),
        (lambda c: c["optimizer"]["state"][0].clear(), "optimizer in the checkpoint does not fit"),
        (lambda c: c.update(objective={"x": c["model"]["eigenlayer.weight"]}), "not the weights of the losses"),
        (lambda c: c.update(log_lines=10**6), "instead of the 1000000"),
    ],
)
def test_a_checkpoint_with_another_value_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = interrupted(tmp_path / "run", 6)
    change_checkpoint(folder / "checkpoints" / "rri_last.pth", change)
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        experiment(folder, resume=True).run()
    assert (folder / "log.jsonl").read_bytes() == before


def shorter(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-3])


@pytest.mark.parametrize(
    "change",
    [
        shorter,
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" + data[1:],
        lambda data: data.replace(b'"loss": 1', b'"loss": 2', 1),
    ],
)
def test_a_log_that_is_not_the_one_of_the_checkpoint_is_refused(tmp_path: Path, change: Any) -> None:
    path = interrupted(tmp_path / "run") / "log.jsonl"
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(InputError, match=r"log\.jsonl: .* restore the file, .* or add --force"):
        experiment(tmp_path / "run", resume=True).run()
    assert path.read_bytes() == changed


def test_a_changed_log_may_be_forced(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "run") / "log.jsonl"
    path.write_bytes(shorter(path.read_bytes()))
    told: list[str] = []
    experiment(tmp_path / "run", resume=True, force=True, warn=told.append).run()
    assert len(told) == 1 and "instead of the" in told[0]


def test_an_incomplete_last_line_is_removed(tmp_path: Path, whole: Path) -> None:
    path = interrupted(tmp_path / "run") / "log.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"kind": "epo\xff')
    told: list[str] = []
    experiment(tmp_path / "run", resume=True, warn=told.append).run()
    assert len(told) == 1 and "the last line is incomplete" in told[0]
    assert timeless(log(tmp_path / "run")) == timeless(log(whole))


def test_a_log_of_results_without_checkpoints_is_kept(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        experiment(folder, resume=True).run()
    assert (folder / "log.jsonl").read_bytes() == before


def test_a_log_without_results_is_begun_anew(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("SEED: 0\n")
    (folder / "log.jsonl").write_text('{"kind": "start"}\n{"kind": "threads"}\n{"kind": "epo')
    experiment(folder, resume=True).run()
    assert timeless(log(folder)) == timeless(log(whole))


def test_a_control_without_its_original_is_refused(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run", 12)
    for name in ("rri_last.pth", "rri_previous.pth"):
        (folder / "checkpoints" / name).unlink()
    with pytest.raises(InputError, match=r"rri_last\.pth is missing"):
        experiment(folder, resume=True).run()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04"])
def test_without_its_start_the_control_trains_step_0_again(tmp_path: Path, whole: Path, content: bytes | None) -> None:
    folder = tmp_path / "run"
    experiment(folder, control=False).run()
    path = folder / "checkpoints" / "rri_step0.pth"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    told: list[str] = []
    experiment(folder, resume=True, warn=told.append).run()
    assert len(told) == 1 and "a control will train Step 0 again" in told[0]
    assert_same_run(folder, whole)


def test_a_start_of_the_control_that_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    experiment(folder, control=False).run()
    (folder / "checkpoints" / "rri_step0.pth").write_bytes(b"")
    change_checkpoint(folder / "checkpoints" / "rri_last.pth", lambda c: c["rows"][0].update(train_loss=0.5))
    with pytest.raises(InputError, match=r"Step 0 trained again ended with loss .*, not 0\.5"):
        experiment(folder, resume=True, warn=lambda line: None).run()


def test_a_run_whose_folder_was_replaced_writes_nothing_into_it(tmp_path: Path) -> None:
    """As when the folder of a live run is removed and another run is started in its place."""
    folder, other = tmp_path / "run", tmp_path / "other"
    interrupted(other)
    before = {path.name: path.read_bytes() for path in other.rglob("*") if path.is_file()}

    def replacing(model: Any, last: bool) -> Any:
        if folder.exists():
            folder.rename(tmp_path / "gone")
            shutil.copytree(other, folder)
        return evaluate(model, last)

    with pytest.raises(InputError, match="removed or replaced while this run was training into it"):
        experiment(folder, score=replacing).run()
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_whose_folder_was_removed_does_not_bring_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def removing(model: Any, last: bool) -> Any:
        shutil.rmtree(folder)
        return evaluate(model, last)

    with pytest.raises(InputError, match="removed or replaced"):
        experiment(folder, score=removing).run()
    assert not folder.exists()


BEFORE = {"machine": {"threads": 2, "processor": "x"}, "versions": {"torch": "2.0"}, "commit": None, "processes": 1}
AFTER = {"machine": {"threads": 1, "processor": "x"}, "versions": {"torch": "2.1"}, "commit": None, "processes": 1}


def test_another_machine_is_mentioned_once_and_stands_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        experiment(folder, score=killing(2, evaluate), provenance=BEFORE).run()
    told: list[str] = []
    with pytest.raises(Killed):
        experiment(folder, resume=True, score=killing(3, evaluate), provenance=AFTER, warn=told.append).run()
    assert len(told) == 1
    for part in ("versions.torch was 2.0, is 2.1", "machine.threads was 2, is 1", "need not end bit-identical"):
        assert part in told[0]
    experiment(folder, resume=True, provenance=AFTER, warn=told.append).run()
    assert len(told) == 1
    changed = [line for line in log(folder) if line["kind"] == "changed"]
    assert [line["machine"] for line in changed] == [AFTER["machine"]]


def test_a_change_stays_in_the_log_when_the_run_is_killed_right_after_it(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "run")
    with pytest.raises(Killed):
        experiment(folder, resume=True, score=killing(1, evaluate), changes=("SEED was 0, is 1",)).run()
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines].count("changed") == 1
    experiment(folder, resume=True).run()
    assert [line["kind"] for line in log(folder)].count("changed") == 1
