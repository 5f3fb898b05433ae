"""Weights come out of every program's files, and no file gets to run anything."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reid.errors import InputError
from reid.io.checkpoint import save_checkpoint
from reid.io.state_dicts import read_state_dict

TENSORS = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "fc.weight": torch.arange(6.0).reshape(2, 3)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


def assert_read(path: Path) -> None:
    tensors, config, _ = read_state_dict(path)
    assert list(tensors) == list(TENSORS) and config is None
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3, "rank1": np.float64(0.5), "optimizer": OPTIMIZER},
        {"model": TENSORS, "optimizer": OPTIMIZER, "iteration": 5},
        {"net": TENSORS, "acc": np.float32(0.25), "epoch": np.int64(7)},
        {"state_dict": {f"module.{name}": tensor for name, tensor in TENSORS.items()}},
        {f"module._orig_mod.{name}": tensor for name, tensor in TENSORS.items()},
        {"odd name": TENSORS, "optimizer": OPTIMIZER},
        {"model": {"state_dict": TENSORS}},
        {"step": torch.tensor(3), "state_dict": {**TENSORS, "extra_state": "text"}},
    ],
    ids=[
        "bare",
        "torchreid",
        "fast-reid",
        "net",
        "DataParallel",
        "compiled",
        "one unknown key",
        "nested",
        "others too",
    ],
)
def test_layouts_of_other_programs(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "model.pth.tar-60")
    assert_read(tmp_path / "model.pth.tar-60")


def prefixed(prefix: str, tensors: dict[str, torch.Tensor] = TENSORS) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


OTHER = {name: tensor + 1 for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"state_dict": prefixed("model."), "pytorch-lightning_version": "2.4.0"}, ""),
        ({"state_dict": prefixed("model.model.")}, ""),
        (prefixed("net.module."), ""),
        ({"n_averaged": torch.tensor(3), **prefixed("module.")}, "beside module.*, n_averaged is left out"),
        ({"state_dict": {**prefixed("model."), "criterion.margin": torch.ones(1)}}, "criterion.* is left out"),
        (
            {"initted": torch.tensor(True), **prefixed("online_model.", OTHER), **prefixed("ema_model.")},
            "ema_model.* is taken, not online_model.*",
        ),
        (
            {"state_dict": TENSORS, "ema_state_dict": prefixed("module.", OTHER)},
            "state_dict is taken, not ema_state_dict",
        ),
    ],
)
def test_wrappers_are_removed_and_a_choice_is_named(tmp_path: Path, content: dict[str, Any], note: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    tensors, _, notes = read_state_dict(tmp_path / "a.pth")
    assert list(tensors) == list(TENSORS) and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert bool(notes) == bool(note) and note in "".join(notes)


def test_prefixes_of_parts_stay(tmp_path: Path) -> None:
    parts = {
        **prefixed("model.layer1."),
        "classifier.weight": torch.ones(2, 3),
        "model.bn.num_batches_tracked": torch.tensor([5]),
    }
    torch.save({f"module.{name}": tensor for name, tensor in parts.items()}, tmp_path / "a.pth")
    tensors, _, notes = read_state_dict(tmp_path / "a.pth")
    assert list(tensors) == list(parts) and not notes
    assert tensors["model.bn.num_batches_tracked"].shape == ()
    torch.save({**prefixed("teacher."), "student.weight": torch.ones(1)}, tmp_path / "a.pth")
    assert "student.weight" in read_state_dict(tmp_path / "a.pth").tensors


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    tensors, config, _ = read_state_dict(tmp_path / "model.safetensors")
    assert config is None and sorted(tensors) == sorted(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_checkpoint_of_ours_carries_its_configuration(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", {"model": TENSORS, "config": "SEED: 1\n", "num_classes": 2})
    tensors, config, _ = read_state_dict(tmp_path / "a.pth")
    assert list(tensors) == list(TENSORS)
    assert config == "SEED: 1\n"


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo > executed",)


def write_bad(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.pth"
    if kind == "trap":
        torch.save({"state_dict": TENSORS, "optimizer": Trap()}, path)
    elif kind == "legacy trap":
        torch.save(Trap(), path, _use_new_zipfile_serialization=False)
    elif kind == "module":
        torch.save(nn.Linear(2, 3), path)
    elif kind == "object scalar":
        torch.save({"state_dict": TENSORS, "best": np.array([Trap()], dtype=object)}, path)
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"a": Trap()}, protocol=int(kind[-1])))
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in ("storages", "tensors", "pickle"):
                data = pickle.dumps(Trap())
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    elif kind == "script":
        torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)), path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["trap", "legacy trap", "module", "object scalar", "pickle2", "pickle4", "pickle5", "tar", "script"]
)
def test_code_is_refused_with_the_way_to_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_bad(tmp_path, kind)
    with pytest.raises(InputError, match="execut") as raised:
        read_state_dict(path)
    assert str(path) in str(raised.value) and "torch.save(model.state_dict()" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()


def test_an_object_in_a_numpy_scalar_stays_out(tmp_path: Path) -> None:
    # The dtype "O8" would make the scalar hold anything; its reconstruction is not among what is allowed.
    class Scalar:
        def __reduce__(self) -> tuple[Any, ...]:
            return np.float64().__reduce__()[0], (np.dtype("O"), b"")

    torch.save({"model": TENSORS, "best": Scalar()}, tmp_path / "a.pth")
    with pytest.raises(InputError):
        read_state_dict(tmp_path / "a.pth")


def test_broken_files_in_one_line(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    save_file(TENSORS, tmp_path / "whole.safetensors")
    (tmp_path / "short.pth").write_bytes(whole[:-300])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "noise.pth").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "array.pth").write_bytes(pickle.dumps(np.ones(2), protocol=2))
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-8])
    (tmp_path / "text.safetensors").write_text("hello, this is no header of anything")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><title>Sign in</title>")
    (tmp_path / "page.safetensors").write_text("<html><title>Not found</title></html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "numbers.pth")
    torch.save({"one": TENSORS, "two": TENSORS}, tmp_path / "two.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "nothing.pth")
    torch.save({0: torch.ones(1)}, tmp_path / "unnamed.pth")
    for name, message in [
        ("short.pth", "corrupt or not a checkpoint"),
        ("empty.pth", "corrupt or not a checkpoint"),
        ("text.pth", "corrupt or not a checkpoint"),
        ("noise.pth", "corrupt or not a checkpoint"),
        ("array.pth", "loading it would execute code"),
        ("short.safetensors", "corrupt or not a safetensors"),
        ("text.safetensors", "corrupt or not a safetensors"),
        ("empty.safetensors", "corrupt or not a safetensors"),
        ("numbers.pth", "no state dict found, its keys: epoch, loss"),
        ("two.pth", r"several keys hold tensors \(one, two\)"),
        ("list.pth", "holds a list"),
        ("nothing.pth", "no state dict found"),
        ("unnamed.pth", "no state dict found"),
        ("page.pth", "a web page, not the file itself"),
        ("page.safetensors", "a web page, not the file itself"),
        ("pointer.pth", "a Git LFS pointer"),
        ("missing.pth", "no such"),
        ("missing.safetensors", "no such"),
        (".", "no such"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            read_state_dict(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert str(tmp_path) in str(raised.value)
