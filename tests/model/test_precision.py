"""Which number format is chosen for which hardware."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from reid.errors import InputError
from reid.model.precision import autocast_dtype

CPU = torch.device("cpu")


def cpu_with(monkeypatch: pytest.MonkeyPatch, **instructions: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_takes_bfloat16_where_the_cpu_has_it(instruction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_with(monkeypatch, avx2=True, **{instruction: True})
    assert autocast_dtype("auto", CPU) == autocast_dtype("bfloat16", CPU) == torch.bfloat16
    assert autocast_dtype("float32", CPU) is None


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (nn.Conv2d(8, 8, 3, groups=8), torch.bfloat16),
        (nn.Conv2d(8, 8, 7, groups=8), torch.bfloat16),
        (nn.Conv2d(8, 8, 5, stride=2), torch.bfloat16),
        (nn.Conv2d(8, 8, 5, groups=8), None),
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), None),
    ],
)
def test_training_where_bfloat16_is_slow(layer: nn.Module, dtype: torch.dtype | None, monkeypatch: Any) -> None:
    cpu_with(monkeypatch, avx512_bf16=True)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), layer)
    assert autocast_dtype("auto", CPU, trained=network) == dtype
    assert autocast_dtype("bfloat16", CPU, trained=network) == autocast_dtype("auto", CPU) == torch.bfloat16


def test_a_cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_with(monkeypatch, avx2=True, avx512_f=True, avx512_bf16=False)
    assert autocast_dtype("auto", CPU) is None
    with pytest.raises(InputError, match="'cpu' does not compute in bfloat16"):
        autocast_dtype("bfloat16", CPU)


def test_an_older_pytorch_is_asked_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert autocast_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert autocast_dtype("auto", CPU) is None


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_must_compute_it_natively(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert autocast_dtype("auto", torch.device("cuda")) == (torch.bfloat16 if native else None)


def test_hardware_nobody_asked_stays_at_float32() -> None:
    assert autocast_dtype("auto", torch.device("meta")) is None


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown precision 'float16'; .* must be one of float32, bfloat16, auto"):
        autocast_dtype("float16", CPU)
