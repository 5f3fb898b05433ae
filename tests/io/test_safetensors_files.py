"""Checkpoints as safetensors: what comes back, the same bytes for the same content, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from reid.errors import InputError
from reid.io.checkpoint import ForeignCheckpoint, load_checkpoint, save_checkpoint
from reid.io.safetensors_files import load_safetensors, save_safetensors

CONTENT: dict[str, Any] = {
    "format": 1,
    "model": {"b.weight": torch.arange(6.0).view(2, 3).T, "a": torch.tensor(3), "half": torch.ones(3).half()},
    "config": "SEED: 3\nOUTPUT_DIR: ünï\n",
    "num_classes": 7,
    "calibration": {"slope": 1.5, "points": [0.1, 0.2]},
    "optimizer": {"state": 1},
}


def test_what_comes_back(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "new" / "m.safetensors", CONTENT)
    found = load_checkpoint(tmp_path / "new" / "m.safetensors")
    assert set(found) == set(CONTENT) - {"optimizer"}
    assert {key: found[key] for key in ("format", "config", "num_classes", "calibration")} == {
        key: CONTENT[key] for key in ("format", "config", "num_classes", "calibration")
    }
    for name, tensor in CONTENT["model"].items():
        assert torch.equal(found["model"][name], tensor) and found["model"][name].dtype == tensor.dtype
    # It can be written again as either.
    save_checkpoint(tmp_path / "m.pth", found)
    save_safetensors(tmp_path / "again.safetensors", load_checkpoint(tmp_path / "m.pth"))
    again = (tmp_path / "again.safetensors").read_bytes()
    assert again == (tmp_path / "new" / "m.safetensors").read_bytes()


def test_the_library_reads_it(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "m.safetensors", CONTENT)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert torch.equal(file.get_tensor("b.weight"), CONTENT["model"]["b.weight"])
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {
        "format": "1",
        "config": CONTENT["config"],
        "num_classes": "7",
        "calibration": '{"points": [0.1, 0.2], "slope": 1.5}',
    }


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "m.safetensors", CONTENT)
    torch.save({key: CONTENT[key] for key in CONTENT}, tmp_path / "m.pt")
    code = (
        "import sys, torch; from pathlib import Path; from reid.io.safetensors_files import save_safetensors; "
        "save_safetensors(Path(sys.argv[2]), torch.load(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.pt", tmp_path / "n.safetensors"], check=True)
    assert (tmp_path / "n.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_safetensors(tmp_path / "m.safetensors", CONTENT)
    before = (tmp_path / "m.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        save_safetensors(tmp_path / "m.safetensors", CONTENT | {"num_classes": 8})
    assert (tmp_path / "m.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def _claiming(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is no header of anything",
        _claiming(b"{}"),
        (2**62).to_bytes(8, "little") + b"{}",
        _claiming(json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode())
        + bytes(8),
        _claiming(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()) + bytes(4),
        _claiming(b"[" * 5000),
    ],
)
def test_what_is_broken(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    for read in (load_safetensors, load_checkpoint):
        with pytest.raises(InputError, match=r"m\.safetensors: (corrupt|holds)") as told:
            read(tmp_path / "m.safetensors")
        assert "\n" not in str(told.value)


def test_what_is_not_ours(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    texts = {"format": "1", "config": "", "num_classes": "7"}
    for number, metadata in enumerate(({}, {"format": "pt"}, texts | {"num_classes": "many"}, texts | {"format": "2"})):
        save_file(tensors, tmp_path / f"{number}.safetensors", metadata=metadata)
        with pytest.raises(ForeignCheckpoint, match="not a checkpoint written by this project"):
            load_checkpoint(tmp_path / f"{number}.safetensors")
    save_file(tensors, tmp_path / "c.safetensors", metadata=texts | {"calibration": "[[["})
    with pytest.raises(InputError):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_changed_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_safetensors(path, CONTENT)
    good = path.read_bytes()
    monkeypatch.setattr("reid.io.safetensors_files.load", lambda data: pytest.fail("parsed"))
    for place in (0, good.index(b"SEED"), good.index(b"calibration"), len(good) - 1):
        data = bytearray(good)
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"m\.safetensors: corrupt: it does not match its digest"):
            load_safetensors(path)


def test_a_digest_that_another_program_copied_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "m.safetensors", CONTENT)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) + 1 for name in file.keys()}  # noqa: SIM118
    for number in range(5):  # the library writes the metadata in a different order each time
        save_file(tensors, tmp_path / f"{number}.safetensors", metadata=metadata)
        with pytest.raises(InputError, match="digest"):
            load_safetensors(tmp_path / f"{number}.safetensors")
    del metadata["sha256"]
    save_file(tensors, tmp_path / "m.safetensors", metadata=metadata)
    assert torch.equal(load_checkpoint(tmp_path / "m.safetensors")["model"]["a"], CONTENT["model"]["a"] + 1)


def test_a_file_that_cannot_be_read_is_not_called_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_safetensors(tmp_path / "m.safetensors", CONTENT)

    def fail(*_: object) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError):
        load_safetensors(tmp_path / "m.safetensors")
