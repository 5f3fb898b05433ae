"""In which number format the backbone is computed."""

from __future__ import annotations

import torch

from reid.errors import InputError

PRECISIONS = ("float32", "bfloat16", "auto")


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to give `torch.autocast`, or None for plain float32.

    precision: "float32", "bfloat16", or "auto", which is bfloat16 where `device` computes in it natively. Emulated
    bfloat16 is slower than float32, so it does not count. Raises InputError for "bfloat16" on hardware without it.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "float32":
        return None
    if has_bfloat16(device):
        return torch.bfloat16
    if precision == "bfloat16":
        raise InputError(f"the device '{device}' does not compute in bfloat16 natively; use 'auto' or 'float32'")
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return _cpu_has_bfloat16()
    return False


def _cpu_has_bfloat16() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is None:  # older releases have a private question only; where that is missing too, the answer is no
        private = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return private is not None and bool(private())
    can = ask()
    return any(can.get(instruction, False) for instruction in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
