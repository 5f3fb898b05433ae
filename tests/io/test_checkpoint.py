from __future__ import annotations

import errno
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid.errors import InputError
from reid.io.checkpoint import load_checkpoint, load_latest, load_tensors, save_checkpoint
from reid.io.tensor_files import to_bytes

CONTENT = {
    "num_classes": 3,
    "model": {"weight": torch.arange(3.0)},
    "config": "SEED: 1\n",
    "position": {"losses": [1.5]},
}


def test_saved_and_loaded_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.pth"
    save_checkpoint(path, CONTENT)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"]["weight"], CONTENT["model"]["weight"])  # type: ignore[index]
    assert loaded["position"] == {"losses": [1.5]}
    assert [p.name for p in path.parent.iterdir()] == ["a.pth"]


class FullDisk:
    """A file on a disk that fills after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 600])
def test_a_full_disk_keeps_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, CONTENT)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *a, _open=open, **k: FullDisk(_open(*a, **k), room))
        with pytest.raises(OSError) as caught:
            save_checkpoint(path, {**CONTENT, "more": torch.zeros(10_000)})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_broken_and_foreign_files(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "good.pth", CONTENT)
    (tmp_path / "short.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:-200])
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    torch.save({"format": 1, "model": 3, "config": "", "num_classes": 1}, tmp_path / "odd.pth")
    torch.save(CONTENT, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "legacy.pth").write_bytes((tmp_path / "legacy.pth").read_bytes()[:-40])
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in [
        ("short.pth", "corrupt"),
        ("text.pth", "corrupt"),
        ("empty.pth", "corrupt"),
        ("foreign.pth", "not a checkpoint written by this project.*svdnet convert"),
        ("odd.pth", "not a checkpoint written by this project"),
        ("legacy.pth", "corrupt"),
        ("list.pth", "holds a list"),
        ("missing.pth", "no such checkpoint"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import signal, sys
from pathlib import Path
import torch
from reid.io.checkpoint import load_checkpoint, save_checkpoint
path = Path(sys.argv[1])
content = {"config": "", "num_classes": 3, "model": {f"tensor{n}": torch.zeros(100_000) for n in range(20)}}
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
save_checkpoint(path, content)
for after in (0.0005, 0.003, 0.01, 0.03) * 5:
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        for _ in range(1000):  # until the alarm comes, in the serializing, the writing or the renaming
            save_checkpoint(path, content)
        sys.exit("not interrupted")
    except KeyboardInterrupt:
        pass
    load_checkpoint(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
"""


def test_an_interrupt_while_saving_is_an_interrupt(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "a.pth")], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_save_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(content: object) -> memoryview:
        signal.raise_signal(signal.SIGINT)
        return to_bytes(content)

    monkeypatch.setattr("reid.io.checkpoint.to_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pth", CONTENT)
    assert load_checkpoint(tmp_path / "a.pth")["num_classes"] == CONTENT["num_classes"]


def test_no_damage_gives_a_traceback(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "good.pth", CONTENT)
    good = (tmp_path / "good.pth").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for place in random.integers(0, len(data), size=random.integers(1, 6)):
            data[place] = random.integers(0, 256)
        (tmp_path / "bad.pth").write_bytes(data[: random.integers(1, len(data) + 1)])
        try:
            load_checkpoint(tmp_path / "bad.pth")
        except InputError:
            refused += 1
    assert refused > 200


def test_a_single_bit_is_noticed(tmp_path: Path) -> None:
    path, older = tmp_path / "a.pth", tmp_path / "older.pth"
    content = {**CONTENT, "model": {"weight": torch.arange(500.0)}}
    save_checkpoint(path, content)
    torch.save({"format": 1, **content}, older)
    for file, message in ((path, "it does not match its digest"), (older, "data/0 does not match its checksum")):
        data = bytearray(file.read_bytes())
        data[data.find(torch.tensor(123.0).numpy().tobytes())] ^= 1
        file.write_bytes(data)
        torch.load(file, weights_only=True)  # which looks at neither
        with pytest.raises(InputError, match=rf"{file.name}: corrupt: .*{message}"):
            load_checkpoint(file)


def test_other_programs_read_a_checkpoint_with_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, CONTENT)
    for options in ({}, {"mmap": True}, {"weights_only": False}):
        assert torch.equal(torch.load(path, **options)["model"]["weight"], torch.arange(3.0))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"reid sha256 ")


def rewritten(source: Path, target: Path, change: Callable[[zipfile.ZipInfo, bytes], list[tuple[Any, bytes]]]) -> None:
    """Copy an archive with other entries in place of each one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about names that exist twice
        for entry in old.infolist():
            for name, data in change(entry, old.read(entry)):
                new.writestr(name, data)


def test_older_checkpoints_are_loaded_and_their_entries_compared_with_what_pytorch_would_read(tmp_path: Path) -> None:
    older, path = tmp_path / "older.pth", tmp_path / "changed.pth"
    torch.save({"format": 1, **CONTENT}, older)
    assert torch.equal(load_checkpoint(older)["model"]["weight"], torch.arange(3.0))

    def as_a_folder(entry: zipfile.ZipInfo, data: bytes) -> list[tuple[Any, bytes]]:
        entry.external_attr |= 0x10
        return [(entry, data)]

    for change, message in (
        (as_a_folder, "is marked as a folder"),
        (lambda entry, data: [(entry, data), (entry.filename.upper(), bytes(len(data)))], "exists twice"),
        (lambda entry, data: [(entry, data), (entry.filename, data)], "exists twice"),
    ):
        rewritten(older, path, change)
        with pytest.raises(InputError, match=rf"changed\.pth: corrupt: .*{message}"):
            load_checkpoint(path)

    # An entry that is packed into nothing, with the checksum of nothing: PyTorch would not fill its memory.
    rewritten(older, path, lambda entry, data: [(entry, b"" if "data/0" in entry.filename else data)])
    data = bytearray(path.read_bytes())
    place = data.rfind(b"/data/0") - data[data.rfind(b"PK\1\2", 0, data.rfind(b"/data/0")) :].find(b"/data/0")
    data[place + 24 : place + 28] = (12).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"changed\.pth: corrupt: .*is shorter than the archive says"):
        load_checkpoint(path)


def test_a_shortage_of_memory_does_not_replace_a_sound_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, previous = tmp_path / "a.pth", tmp_path / "b.pth"
    for number in range(2):
        save_checkpoint(path, {**CONTENT, "number": number}, previous=previous)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with monkeypatch.context() as patch:
            patch.setattr("torch.load", lambda *_, _error=error, **__: (_ for _ in ()).throw(_error))
            with pytest.raises(OSError) as caught:
                load_latest(path, previous)
        assert caught.value.errno == errno.ENOMEM
    assert [load_checkpoint(p)["number"] for p in (path, previous)] == [1, 0]


@pytest.mark.parametrize("links", [True, False])
def test_the_checkpoint_before_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    path, previous, printed = tmp_path / "a.pth", tmp_path / "b.pth", list[str]()
    assert load_latest(path, previous, printed.append) is None
    for number in range(3):
        save_checkpoint(path, {**CONTENT, "number": number}, previous=previous)
    assert [load_checkpoint(p)["number"] for p in (path, previous)] == [2, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "b.pth"]
    whole = load_latest(path, previous, printed.append)
    assert whole is not None and whole["number"] == 2 and not printed
    path.write_bytes(path.read_bytes()[:-100])
    before = load_latest(path, previous, printed.append)
    assert before is not None and before["number"] == 1
    assert "a.pth: corrupt" in printed[0] and printed[0].endswith("resuming from the previous checkpoint")
    # It took the broken one's place, so that the next save keeps it.
    assert load_checkpoint(path)["number"] == 1 and not previous.exists()
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.pth"):
        load_latest(path, previous, printed.append)


def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "whole.pth", {**CONTENT, "large": torch.zeros(10_000)})
    whole = (tmp_path / "whole.pth").read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 40):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pth: .*not a checkpoint"):
            load_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("spelling", ["numpy._core", "numpy.core"])
def test_numpy_numbers_are_data(tmp_path: Path, spelling: str) -> None:
    numbers = {"rank1": np.float64(0.5), "epoch": np.int64(7), "best": np.bool_(True), "loss": np.float32(0.25)}
    torch.save({"state_dict": CONTENT["model"], **numbers}, tmp_path / "new.pth.tar")
    with zipfile.ZipFile(tmp_path / "new.pth.tar") as new, zipfile.ZipFile(tmp_path / "a.pth.tar", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core", spelling.encode()))
    assert spelling.encode() in (tmp_path / "a.pth.tar").read_bytes()
    allowed = set(torch.serialization.get_safe_globals())
    loaded = load_tensors(tmp_path / "a.pth.tar")
    assert {name: loaded[name] for name in numbers} == numbers
    assert set(torch.serialization.get_safe_globals()) == allowed
