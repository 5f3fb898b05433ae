"""Reading weights: where they are looked for, what is accepted, what is refused in one line."""

from __future__ import annotations

import email.message
import io
import shutil
import urllib.error
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from reid.errors import InputError
from reid.io.checkpoint import load_state_dict
from reid.io.digest import compute_file_digest
from reid.model.pretrained import load_pretrained

TENSORS = OrderedDict(weight=torch.arange(6.0).view(2, 3), bias=torch.ones(2))


def test_none_is_from_scratch() -> None:
    assert load_pretrained("resnet50", "none") is None


def test_a_relative_path_is_looked_for_here_then_under_the_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = tmp_path / "here", tmp_path / "root"
    here.mkdir()
    root.mkdir()
    monkeypatch.chdir(here)
    torch.save({"marker": torch.tensor(2)}, root / "w.pth")
    assert dict(load_pretrained("resnet50", "w.pth", roots=[tmp_path / "empty", root]) or {}) == {"marker": 2}
    torch.save({"marker": torch.tensor(1)}, here / "w.pth")
    assert dict(load_pretrained("resnet50", "w.pth", roots=[root]) or {}) == {"marker": 1}
    with pytest.raises(InputError, match=r"no weights file at gone\.pth or .*root/gone\.pth"):
        load_pretrained("resnet50", "gone.pth", roots=[root])


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_imagenet_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(InputError, match=r"resnet18.*cannot be reached.*give the path") as caught:
        load_pretrained("resnet18", "imagenet")
    assert "\n" not in str(caught.value)


class Answer(io.BytesIO):
    """What a server answers that sends something else than the weights."""

    def info(self) -> email.message.Message:
        return email.message.Message()


def test_imagenet_download_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: Answer(b"please log in"))
    with pytest.raises(InputError, match=r"resnet18.*sent a corrupt file"):
        load_pretrained("resnet18", "imagenet")
    assert not list(tmp_path.rglob("*.pth"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which torchvision downloads, without a network."""

    def download(*_: object, **__: object) -> None:
        pytest.fail("downloaded")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", download)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_cached_file_is_not_executed_and_its_hash_is_checked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hub / "resnet18-f37072fd.pth"
    torch.save({"weight": Bomb(hub / "ran")}, path)
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth: corrupt or changed: .*; delete the file") as caught:
        load_pretrained("resnet18", "imagenet")
    assert "\n" not in str(caught.value)
    # A file with the right hash would not be executed either.
    monkeypatch.setattr("reid.model.pretrained.compute_file_digest", lambda path: "f37072fd" + 56 * "0")
    with pytest.raises(InputError, match=r"loading it would execute code.*; delete the file"):
        load_pretrained("resnet18", "imagenet")
    assert not (hub / "ran").exists()
    torch.save(TENSORS, path)
    assert set(load_pretrained("resnet18", "imagenet") or {}) == set(TENSORS)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_compared_with_the_hash_in_its_name(tmp_path: Path, suffix: str) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    digest = compute_file_digest(tmp_path / "w.pth")
    for name in (f"net-{digest[:8]}.pth", f"net-{digest}.pth", "net-20240101.pth", "net-deadbeef-2.pth"):
        shutil.copy(tmp_path / "w.pth", tmp_path / name)
        assert set(load_pretrained("resnet18", str(tmp_path / name)) or {}) == set(TENSORS)
    shutil.copy(tmp_path / "w.pth", tmp_path / f"net-deadbeef{suffix}")
    with pytest.raises(InputError, match="SHA-256 does not begin with deadbeef, as its name says"):
        load_pretrained("resnet18", str(tmp_path / f"net-deadbeef{suffix}"))


def test_imagenet_for_osnet_asks_for_the_file() -> None:
    with pytest.raises(InputError, match="no ImageNet weights for osnet_x0_25: give the path of its published file"):
        load_pretrained("osnet_x0_25", "imagenet")


def test_every_kind_of_difference_is_named_and_nothing_is_copied() -> None:
    module = torch.nn.Linear(3, 2)
    before = module.bias.detach().clone()
    weights = {"weight": torch.zeros(3, 2), "bias": torch.zeros(2), "scale": torch.zeros(1)}
    faults = r"1 unexpected \(scale\); 1 of a different shape \(weight \(3, 2\) for \(2, 3\)\)"
    message = rf"f\.pth: not the weights of net.*{faults}"
    with pytest.raises(InputError, match=message):
        load_state_dict(module, weights, network="net", source="f.pth")
    with pytest.raises(InputError, match=r"2 missing \(weight, bias\)"):
        load_state_dict(module, {}, network="net", source="f.pth")
    assert torch.equal(module.bias, before)


def test_weights_that_are_not_finite_are_refused() -> None:
    module = torch.nn.Linear(3, 2)
    weights = {**TENSORS, "bias": torch.tensor([1.0, float("nan")])}
    with pytest.raises(InputError, match=r"f\.pth: 1 of 2 tensors hold NaN or infinity, the first is bias"):
        load_state_dict(module, weights, network="net", source="f.pth")
    load_state_dict(module, weights, network="net", source="f.pth", finite=False)
    assert module.bias.isnan().any()


def test_many_differences_are_shortened() -> None:
    with pytest.raises(InputError, match=r"5 unexpected \(t0, t1, t2, \.\.\.\)"):
        weights = {**TENSORS, **{f"t{i}": torch.zeros(1) for i in range(5)}}
        load_state_dict(torch.nn.Linear(3, 2), weights, network="net", source="f.pth")


def test_unused_tensors_and_missing_counters_are_fine() -> None:
    norm = torch.nn.BatchNorm1d(2)
    weights = {name: torch.full((2,), 3.0) for name in ("weight", "bias", "running_mean", "running_var", "fc")}
    load_state_dict(norm, weights, network="net", source="f.pth", unused=("fc",))
    assert norm.running_var.tolist() == [3.0, 3.0]
