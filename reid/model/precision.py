"""Number format of the backbone's computation."""

from __future__ import annotations

import torch
from torch import nn

from reid.errors import InputError, unknown_name

PRECISIONS = ("float32", "bfloat16", "auto")


def autocast_dtype(precision: str, device: torch.device, trained: nn.Module | None = None) -> torch.dtype | None:
    """Choose the dtype for `torch.autocast`.

    Args:
        precision: "float32", "bfloat16", or "auto" for bfloat16 if the device computes in it natively. Emulated
            bfloat16 is slower than float32 and therefore not used.
        device: Device of the computation.
        trained: The network, if gradients will be computed; those of some convolutions are slow in bfloat16 on a CPU.

    Returns:
        The dtype, or None for plain float32.

    Raises:
        InputError: If the precision is unknown, or is "bfloat16" on hardware without it.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "float32":
        return None
    if precision == "auto" and device.type == "cpu" and trained is not None and _is_slow_in_bfloat16(trained):
        return None
    if _has_bfloat16(device):
        return torch.bfloat16
    if precision == "bfloat16":
        raise InputError(f"the device '{device}' does not compute in bfloat16 natively; use float32")
    return None


def _is_slow_in_bfloat16(network: nn.Module) -> bool:
    """Whether a network has depthwise convolutions with a stride or of 5×5.

    Measured with oneDNN 3 on a CPU with AVX-512 BF16: in bfloat16 the gradients of strided ones take 13 to 115 times as
    long as in float32, those of 5×5 2.5 to 3.7 times, so that a step of EfficientNet-Lite0, MobileNetV2 or MobileNetV4
    takes about twice as long. 3×3 takes half to three quarters, and 7×7 1.4 times, with which ConvNeXt is still faster.
    """
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    depthwise = [layer for layer in convolutions if layer.groups == layer.in_channels > 1]
    return any(max(layer.stride) > 1 or 5 in layer.kernel_size for layer in depthwise)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return _cpu_has_bfloat16()
    return False


def _cpu_has_bfloat16() -> bool:
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is None:  # older releases have a private function only; without it, the answer is no
        private = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return private is not None and bool(private())
    capabilities = get_capabilities()
    return any(capabilities.get(instruction, False) for instruction in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
