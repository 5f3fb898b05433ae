"""Checkpoints that claim more than they hold, or hold something else than they should, are refused in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from reid.config import build
from reid.config.loading import load_config
from reid.errors import InputError
from reid.inference.conversion import load_network
from reid.io.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from reid.io.state_dicts import read_state_dict
from reid.io.tensor_files import check_tensors, is_dense

SOUND: dict[str, Any] = {"model": {"a": torch.zeros(2)}, "config": "", "num_classes": 2}


def test_a_tensor_of_a_single_number_that_claims_a_terabyte(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**20, 2**20)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: corrupt or not a checkpoint"):
        load_tensors(tmp_path / "a.pth")


def test_a_packed_zip_of_very_many_zeros(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(40 * 2**20)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as good,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for name in good.namelist():
            packed.writestr(name, good.read(name))
    with pytest.raises(InputError, match="corrupt"):
        load_tensors(tmp_path / "b.pth")
    with pytest.raises(InputError, match="files are not compressed"):
        load_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": torch.zeros(2)},
        {"model": {"a": 1}},
        {"model": {1: torch.zeros(2)}},
        {"model": {"a": torch.eye(2).to_sparse()}},
        {"config": "MODEL: [" * 40_000},
    ],
    ids=["format", "number", "name", "sparse", "config"],
)
def test_a_checkpoint_of_other_content(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.save({"format": 1, **SOUND, **changes}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth"):
        load_network(tmp_path / "a.pth")


def test_weights_that_hold_themselves(tmp_path: Path) -> None:
    content: dict[str, Any] = {"teacher": {"a": {"b": torch.zeros(2)}}, "format": torch.zeros(3)}
    content["model"] = content
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("classes", [2**40, 10**8, 0, -3])
def test_a_configuration_of_a_far_larger_network(tmp_path: Path, classes: int) -> None:
    (tmp_path / "c.yaml").write_text("")
    config = load_config(tmp_path / "c.yaml", ["MODEL.BACKBONE", "osnet_x0_25", "MODEL.EIGENLAYER.DIM", "8"])
    model = build.network(config, num_classes=4).state_dict()
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": model, "config": config.dump(), "num_classes": classes})
    with pytest.raises(InputError, match="describes a network of"):
        load_network(path)
    save_checkpoint(path, {"model": model, "config": config.dump(), "num_classes": 4})
    assert load_network(path)[0].classifier is not None


def test_what_cannot_be_walked_through() -> None:
    deep: list[Any] = []
    for _ in range(70):
        deep = [deep]
    for content in (deep, {"a": torch.empty(2, device="meta")}):
        with pytest.raises(ValueError):
            check_tensors(content, 1000)
    check_tensors({"a": [torch.zeros(5), torch.zeros(1).expand(1000)], ("b", 1): {1, 2}}, 1000)


def test_dense() -> None:
    assert is_dense(torch.zeros(2)) and is_dense(torch.zeros(2, dtype=torch.int8).T)
    others = (1, None, torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.complex64))
    assert not any(map(is_dense, others))
